"""CRD: a contrastive loss of the two networks' embeddings.

It pulls the embeddings of one image together and pushes those of images of other classes apart.
"""

from typing import final

import torch.nn.functional as F
from torch import Tensor, nn

from distill_run.data.batches import Batch
from distill_run.data.draws import stream
from distill_run.errors import user_error
from distill_run.models.outputs import Outputs
from distill_run.objectives.base import FeatureObjective, Pair
from distill_run.objectives.memory import Memory, Negatives
from distill_run.objectives.projections import map_shape
from distill_run.rules import BELOW_ONE, POSITIVE, whole


@final
class ContrastiveRepresentation(FeatureObjective):
    """Cross-entropy + weight * (the noise-contrastive losses of the student's and of the teacher's embeddings).

    A learned linear layer for each network turns its features into embeddings of length 1; a map is averaged over its
    positions first. Two memories hold one embedding of each training sample, one memory for each network. The embedding
    of an image by one network is compared with the other network's memory: with the same sample as it was before the
    batch, and with `num_negatives` samples of other classes. These are drawn with replacement, so that
    `num_negatives` may exceed the number of samples. A mixed image counts as the sample whose index it has. The
    memories take 2 * M * embedding_size numbers for M training samples, a step takes a few times 2 * N * M. In eval
    mode the memories stay as they are. Source: see losses/contrast.py.
    """

    needs_targets = True

    def __init__(
        self,
        *,
        weight: float,
        student_points: list[str],
        teacher_points: list[str],
        embedding_size: int,
        num_negatives: int,
        temperature: float,
        momentum: float,
    ) -> None:
        super().__init__(weight=weight, student_points=student_points, teacher_points=teacher_points)
        whole(1).check("embedding_size", embedding_size)
        whole(1).check("num_negatives", num_negatives)
        POSITIVE.check("temperature", temperature)
        BELOW_ONE.check("momentum", momentum)
        self.embedding_size = embedding_size
        self.num_negatives = num_negatives
        self.temperature = temperature
        self.momentum = momentum

    def fit_to(self, pair: Pair) -> None:
        """See FeatureObjective; refuses several points, and a training set of one class."""
        if len(pair.student) != 1:
            raise user_error(
                f"it compares one point of each network, and there are {len(pair.student)}",
                "write mode.student_points=[pooled] mode.teacher_points=[pooled]",
            )
        if bool((pair.targets == pair.targets[0]).all()):
            raise user_error(
                "all training images are of one class, and it needs images of other classes",
                "choose another dataset, or a mode that works with one class, as in mode=soft",
            )
        self.seed = pair.seed
        self.embed_student = Embedding("student", pair.student[0], self.embedding_size)
        self.embed_teacher = Embedding("teacher", pair.teacher[0], self.embedding_size)
        self.student_memory = Memory(len(pair.targets), self.embedding_size)
        self.teacher_memory = Memory(len(pair.targets), self.embedding_size)
        self.negatives = Negatives(pair.targets.cpu(), pair.num_classes)

    def distillation(self, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
        """See FeatureObjective. In training mode, the memories take over the embeddings of the batch."""
        ((student_features, teacher_features),) = self.features(student, teacher)
        ours, theirs = self.embed_student(student_features), self.embed_teacher(teacher_features)
        seed = stream("negatives", self.seed, batch.epoch, batch.step) >> 1
        negatives = self.negatives.draw(batch.targets, self.num_negatives, seed)
        loss: Tensor = self.teacher_memory.loss(ours, batch.indices, negatives, self.temperature)
        loss = loss + self.student_memory.loss(theirs, batch.indices, negatives, self.temperature)
        if self.training:
            self.student_memory.remember(batch.indices, ours, self.momentum)
            self.teacher_memory.remember(batch.indices, theirs, self.momentum)
        return loss


class Embedding(nn.Module):
    """A linear layer from features of `shape`, (C,) or (C, H, W), to embeddings (N, size) of length 1."""

    def __init__(self, network: str, shape: tuple[int, ...], size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(map_shape(network, shape)[0], size)

    def forward(self, features: Tensor) -> Tensor:
        """See the class; a map is averaged over its positions."""
        vectors = features if features.ndim == 2 else features.mean(dim=(2, 3))
        return F.normalize(self.linear(vectors), dim=1)
