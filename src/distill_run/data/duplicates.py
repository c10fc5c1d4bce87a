"""Images that stand in train and in test: a test image that was trained on says nothing about new ones."""

import hashlib
from collections.abc import Iterable

from torch import Tensor


def duplicate_notes(train: Iterable[bytes], test: Iterable[bytes]) -> list[str]:
    """A sentence that counts the test images whose digest is that of a training image; none where there are none."""
    known = set(train)
    count = sum(digest in known for digest in test)
    if not count:
        return []
    are = "images stand" if count > 1 else "image stands"
    return [f"{count:,} test {are} in train, too: the test accuracy is too high by what the networks remember of them"]


def seen_notes(unlabelled: Iterable[bytes], test: Iterable[bytes]) -> list[str]:
    """A sentence that counts the test images whose digest is that of an unlabelled image; none where there are none."""
    known = set(unlabelled)
    count = sum(digest in known for digest in test)
    if not count:
        return []
    return [f"test and unlabelled images have {count:,} in common: the student sees these test images in training"]


def digests(images: Tensor) -> list[bytes]:
    """A digest of each image (N, C, H, W)."""
    return [hashlib.sha256(image.numpy().data).digest() for image in images.cpu().contiguous()]
