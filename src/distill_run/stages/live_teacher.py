"""The frozen teacher, asked for each batch."""

import copy
from collections.abc import Mapping

from torch import no_grad

from distill_run.data.batches import Batch
from distill_run.engine.device import Device
from distill_run.models.features import FeatureReader
from distill_run.models.folding import fold_batch_norm
from distill_run.models.network import Network
from distill_run.models.outputs import Outputs


class LiveTeacher:
    """A guide that asks a frozen copy of the teacher.

    Frozen: its parameters take no gradient and batch norm uses its running statistics, so that its outputs for an image
    depend on that image alone. Batch norm is folded into the convolutions, unless features at `points` are read, which
    folding could change.
    """

    def __init__(self, network: Network, device: Device, points: Mapping[str, str] | None = None) -> None:
        plain = copy.deepcopy(network.eval()) if points else fold_batch_norm(network.eval())
        self.network = device.place(plain).requires_grad_(False)
        self.read = FeatureReader(self.network, points or {})
        self.device = device

    @no_grad()
    def __call__(self, batch: Batch) -> Outputs:
        """The teacher's outputs for the same view that the student sees."""
        assert not self.network.training
        with self.device.autocast():
            return self.read(batch.images)
