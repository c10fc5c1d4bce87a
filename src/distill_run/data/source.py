"""What a source of images gives: uint8 tensors of its splits and the names of its classes."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Split:
    """Images (N, C, H, W) of uint8 and targets (N,) of int64."""

    images: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise ValueError(
                f"images must be uint8 of shape (N, C, H, W), not {self.images.dtype} of {tuple(self.images.shape)}"
            )
        if self.targets.dtype != torch.int64 or self.targets.shape != self.images.shape[:1]:
            raise ValueError(
                f"targets must be int64 of shape ({len(self.images)},), "
                f"not {self.targets.dtype} of {tuple(self.targets.shape)}"
            )

    def __len__(self) -> int:
        return len(self.targets)

    def select(self, indices: Tensor) -> "Split":
        """The samples at `indices` (M,), in their order."""
        return Split(self.images[indices], self.targets[indices])

    def to(self, device: torch.device) -> "Split":
        """The same split on another device."""
        return Split(self.images.to(device), self.targets.to(device))


@dataclass(frozen=True)
class Source:
    """A dataset as it comes: a validation split only where it brings one.

    `notes` are sentences for the user, such as how many files were skipped and why; `entries` the kinds and names of
    what it keeps in the store.
    """

    train: Split
    val: Split | None
    test: Split
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    entries: tuple[tuple[str, str], ...] = ()
