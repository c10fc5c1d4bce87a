"""Batch norm over the images of all processes: with it, a training does not depend on how many there are."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules._functions import SyncBatchNorm
from torch.overrides import TorchFunctionMode

from distill_run.processes import Processes


def shared_statistics(processes: Processes, num_images: int) -> AbstractContextManager[object]:
    """The context in which batch norm in training has the mean and variance of a batch of all, of so many images."""
    return nullcontext() if processes.size == 1 else SharedStatistics(processes, num_images)


class SharedStatistics(TorchFunctionMode):
    """Computes every call of torch's batch norm over all processes; layers and their weights stay as they are.

    So it serves every class of layers that calls it, and a network's modules need not be replaced.
    """

    def __init__(self, processes: Processes, num_images: int) -> None:
        super().__init__()
        self.processes = processes
        self.sizes = processes.share_sizes(num_images)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """See torch.overrides; whatever is not batch norm goes its usual way."""
        if func is F.batch_norm:
            return self._batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _batch_norm(
        self,
        values: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """The arguments are those of torch.nn.functional.batch_norm."""
        if not training:
            return F.batch_norm(values, running_mean, running_var, weight, bias, training, momentum, eps)
        if values.is_cuda and min(self.sizes) > 0:  # faster, and for GPUs alone
            given = (weight, bias, running_mean, running_var, eps, momentum)
            fused: Tensor = SyncBatchNorm.apply(values, *given, dist.group.WORLD, self.processes.size)
            return fused
        shape = [1, -1, *[1] * (values.ndim - 2)]
        centred, var = self._centred(values.float(), running_mean, running_var, momentum)
        normalised = centred * (var + eps).rsqrt().view(shape)
        if weight is not None and bias is not None:
            normalised = normalised * weight.view(shape) + bias.view(shape)
        return normalised.to(values.dtype)

    def _centred(
        self, values: Tensor, running_mean: Tensor | None, running_var: Tensor | None, momentum: float
    ) -> tuple[Tensor, Tensor]:
        """The values less the mean of their channel, and its variance (C,); takes both into the running statistics."""
        dims, size = [0, *range(2, values.ndim)], self.sizes[self.processes.rank]
        count = sum(self.sizes) * values[0, 0].numel()
        mean = self.processes.sum(values[:size].sum(dims)) / count
        centred = values - mean.view(1, -1, *[1] * (values.ndim - 2))
        var = self.processes.sum(centred[:size].square().sum(dims)) / count
        if running_mean is not None and running_var is not None:
            with torch.no_grad():
                running_mean.lerp_(mean, momentum)
                running_var.lerp_(var * count / (count - 1), momentum)
        return centred, var
