"""The figures of an epoch in progress."""

from typing import Any

from torch import Tensor


class Totals:
    """Sums over the steps of an epoch, kept on the device until they are read."""

    def __init__(
        self,
        sums: dict[str, Tensor] | None = None,
        num_images: int = 0,
        seconds: float = 0.0,
        data_seconds: float = 0.0,
    ) -> None:
        self.sums = sums or {}
        self.num_images = num_images
        self.seconds = seconds
        self.data_seconds = data_seconds

    def add(self, targets: Tensor, logits: Tensor, losses: dict[str, Tensor]) -> None:
        """Take a batch's losses (means over it) and decisions into account."""
        size = len(targets)
        values = {name: loss.detach().float() * size for name, loss in losses.items()}
        values["accuracy"] = (logits.detach().argmax(1) == targets).sum().float()
        for name, value in values.items():
            self._add(name, value)
        self.num_images += size

    def add_flag(self, name: str, flag: Tensor, num_images: int) -> None:
        """Take into account whether something is the case in an optimizer's step on so many images."""
        self._add(name, flag.float() * num_images)

    def add_time(self, seconds: float, data_seconds: float) -> None:
        """Take a step's time into account, and the part of it that went into making its batches."""
        self.seconds += seconds
        self.data_seconds += data_seconds

    def _add(self, name: str, value: Tensor) -> None:
        self.sums[name] = self.sums[name] + value if name in self.sums else value

    def means(self) -> dict[str, float]:
        """Means over the images so far."""
        return {name: total.item() / self.num_images for name, total in self.sums.items()}

    def timing(self) -> dict[str, float]:
        """Seconds of training, images a second, and the share of the time that was spent waiting for data."""
        return {
            "seconds": self.seconds,
            "images_per_second": self.num_images / self.seconds,
            "data_share": self.data_seconds / self.seconds,
        }

    def state(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return dict(vars(self))
