"""The k largest logits of each sample, and one number that stands for all of the others.

The number is the logarithm of the mean of the others' exponentials. With it as the logit of each of the others, the
softmax at temperature 1 gives the k classes exactly the teacher's probabilities, and spreads the rest of the
probability evenly; the KL divergence from the teacher is at most the rest times log(K - k). At every temperature the
ratios among the k are the teacher's. Above 1, the others together get more probability than the teacher gives them;
below 1, less, because they are all alike.
Sources: Shen and Xing, "A Fast Knowledge Distillation Framework for Visual Recognition", 2022; Wu et al., "TinyViT",
2022, section 3.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Rows = NDArray[Any]  # what a file holds, a row for each sample


@dataclass(frozen=True)
class TopLogits:
    """The largest `logits` (N, k) of each sample, their `classes` (N, k), and the logit of each of the `others` (N,).

    There are `num_classes` in all, more than k.
    """

    logits: Tensor
    classes: Tensor
    others: Tensor
    num_classes: int

    @classmethod
    def of(cls, logits: Tensor, k: int) -> "TopLogits":
        """What is kept of logits (N, K)."""
        largest, classes = logits.topk(k)
        rest = logits.float().scatter(1, classes, -math.inf).logsumexp(1)
        return cls(largest, classes, rest - math.log(logits.shape[1] - k), logits.shape[1])

    @classmethod
    def of_rows(cls, rows: Rows, num_classes: int, place: Callable[[Tensor], Tensor]) -> "TopLogits":
        """What `rows` gave; `place` brings a tensor to the device."""
        names = ("logits", "classes", "others")
        parts = [place(torch.from_numpy(np.ascontiguousarray(rows[name]))) for name in names]
        return cls(parts[0], parts[1], parts[2], num_classes)

    def rows(self, dtype: torch.dtype) -> Rows:
        """The same to be stored, the logits in `dtype`."""
        rows = np.empty(len(self.logits), row_type(self.num_classes, self.logits.shape[1], dtype))
        rows["logits"] = self.logits.to(dtype).cpu().numpy()
        rows["classes"] = self.classes.cpu().numpy()
        rows["others"] = self.others.cpu().numpy()
        return rows

    def spread(self, indices: Tensor) -> Tensor:
        """Logits (M, K), in float32, of the samples at `indices` (M,)."""
        others = self.others[indices].float().unsqueeze(1).repeat(1, self.num_classes)
        return others.scatter_(1, self.classes[indices].long(), self.logits[indices].float())


def row_type(num_classes: int, k: int, dtype: torch.dtype) -> np.dtype[np.void]:
    """How the k largest of so many logits of a sample are stored."""
    index = np.min_scalar_type(-num_classes)  # int8, int16 or int32
    return np.dtype([("logits", f"f{dtype.itemsize}", k), ("classes", index, k), ("others", "f4")])
