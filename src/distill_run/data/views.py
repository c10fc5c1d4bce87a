"""Augmented views: view number v of sample i is a pure function of (seed, v, i).

Neither the batch that a sample is in, nor its order or size, nor the device changes what is drawn for it. That is why
a teacher's stored logits belong to the images that the student sees, and why a resumed run equals an uninterrupted
one. torchvision's batched transforms draw once for a whole batch and cannot do this.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from torch import Tensor

from distill_run.data.augment import Augmentation
from distill_run.data.batches import Batch
from distill_run.data.draws import Draws, stream
from distill_run.data.mixing import Mixing, Mixture
from distill_run.data.packing import Packed, Unpacked
from distill_run.data.sending import send
from distill_run.data.source import Split
from distill_run.errors import user_error


@dataclass(frozen=True)
class ViewChoice:
    """What the views of the training samples depend on, beside the images and the augmentations.

    `num_views` is how many views the epochs cycle through; None means a new one for each epoch. `mixup` and `cutmix`
    are the parameters of Mixing; 0 leaves one out. `with_unlabelled` says whether the unlabelled samples join.
    """

    seed: int
    num_views: int | None
    mixup: float
    cutmix: float
    with_unlabelled: bool = False

    @property
    def is_mixed(self) -> bool:
        """Whether images are mixed with others."""
        return self.mixup > 0 or self.cutmix > 0

    def view_of(self, epoch: int) -> int:
        """The number of the view (from 0) that is served in an epoch (from 1)."""
        return epoch - 1 if self.num_views is None else (epoch - 1) % self.num_views

    def views_of(self, num_epochs: int) -> range:
        """The numbers of all views that so many epochs serve."""
        return range(num_epochs if self.num_views is None else min(num_epochs, self.num_views))


class Rendering:
    """The steps from stored images to a view of them, the same wherever the images are stored.

    Each of the `augmentations`, which have their names in `dataset.augment`, changes the images in turn. Where images
    are mixed, each is then mixed with the same view of its partner. `targets` (N,) are those of all samples, on the
    device that trains; the indices of samples are given on the CPU.
    """

    def __init__(
        self,
        targets: Tensor,
        image_size: tuple[int, int],
        augmentations: Mapping[str, Augmentation],
        choice: ViewChoice,
    ) -> None:
        active = [(name, step) for name, step in augmentations.items() if not step.does_nothing]
        self.targets = targets
        self.choice = choice
        self.steps_on_packed = list(takewhile(lambda named: named[1].moves_pixels, active))
        self.steps_on_floats = active[len(self.steps_on_packed) :]
        self.mixing = Mixing(len(targets), image_size, choice.mixup, choice.cutmix) if choice.is_mixed else None

    def mixture(self, indices: Tensor, view: int) -> Mixture | None:
        """How the samples at `indices` (N,) are mixed in a view; None where they are not mixed."""
        if self.mixing is None:
            return None
        return self.mixing.draw(indices, self.choice.seed, view, self.targets.device)

    def partners(self, indices: Tensor, view: int) -> Tensor | None:
        """The samples that those at `indices` (N,) are mixed with in a view; None where they are not mixed."""
        return None if self.mixing is None else self.mixing.partners(indices, self.choice.seed, view)

    def render(self, packed: Packed | Unpacked, indices: Tensor, view: int) -> Tensor:
        """Stored images of the samples at `indices` (N,) in a view, not mixed: float32 (N, C, H, W) in 0..1."""
        draw = Draws(indices, stream("augment", self.choice.seed, view), self.targets.device)
        words = _apply(self.steps_on_packed, packed.words, draw)
        return _apply(self.steps_on_floats, packed.unpack(words), draw)

    def batch(
        self, images: Tensor, mixture: Mixture | None, indices: Tensor, view: int, epoch: int = 1, step: int = 0
    ) -> Batch:
        """Rendered images (N, C, H, W) of the samples at `indices` (N,), with their targets and their partners'."""
        placed = send(indices, self.targets.device)
        partners = shares = None
        if mixture is not None:
            partners, shares = self.targets[send(mixture.partners, self.targets.device)], mixture.shares
        return Batch(placed, images, self.targets[placed], view, epoch, step, partners, shares, indices)


class Views:
    """Renders the views of a split that lies in memory, on its device; see Rendering."""

    def __init__(self, split: Split, augmentations: Mapping[str, Augmentation], choice: ViewChoice) -> None:
        self.split = split
        self.choice = choice
        self.rendering = Rendering(split.targets, split.shape[1:], augmentations, choice)

    def batch(self, indices: Tensor, view: int, epoch: int = 1, step: int = 0) -> Batch:
        """View number `view` of the samples at `indices` (N,), with their targets and those of their partners."""
        return self.rendering.batch(*self.render(indices, view), indices, view, epoch, step)

    def render(self, indices: Tensor, view: int) -> tuple[Tensor, Mixture | None]:
        """The images, float32 (N, C, H, W) in 0..1, and how they were mixed; None where they are not mixed."""
        mixture = self.rendering.mixture(indices, view)
        images = self._render_alone(indices, view)
        if mixture is None:
            return images, None
        return mixture.mix(images, self._render_alone(mixture.partners, view)), mixture

    def _render_alone(self, indices: Tensor, view: int) -> Tensor:
        return self.rendering.render(self.split.packed.select(send(indices, self.split.targets.device)), indices, view)


def _apply(steps: Sequence[tuple[str, Augmentation]], images: Tensor, draw: Draws) -> Tensor:
    """The images after all steps; raises UserError that names a step which changes their type or their shape."""
    for name, step in steps:
        given, images = images, step(images, draw)
        if (images.shape, images.dtype) != (given.shape, given.dtype):
            raise user_error(
                f"dataset.augment.{name} turns images of {given.dtype} {tuple(given.shape)} "
                f"into {images.dtype} {tuple(images.shape)}",
                "an augmentation must keep the type and the shape of the images",
            )
    return images
