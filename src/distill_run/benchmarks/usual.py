"""What most programs do, to be measured against: PIL images, a DataLoader, fp32, the teacher live in every step.

    python -m distill_run.benchmarks.usual IMAGES.npz teacher.pt --architecture cnn_large --epochs 2
    python -m distill_run.benchmarks.usual IMAGES.npz student.pt --architecture cnn_small --teacher teacher.pt ...

One process trains one network, as such a program does at each point of a shell loop. IMAGES.npz holds train, val and
test arrays (N, H, W, 3) of uint8 with their targets.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from distill_run.build import Builder
from distill_run.config.settings import compose_config
from distill_run.data.source import ImageShape
from distill_run.losses.logits import cross_entropy, soft_target_loss
from distill_run.models.network import build_network

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
NUM_WORKERS = 2


class PILDataset(TorchDataset[tuple[Tensor, int]]):
    """Images as torchvision serves them: one PIL image at a time, transformed on its way."""

    def __init__(self, images: Any, targets: Sequence[int], *, augment: bool) -> None:
        from torchvision import transforms

        self.images = images
        self.targets = targets
        size = images.shape[1]
        steps = [transforms.RandomCrop(size, padding=4), transforms.RandomHorizontalFlip()] if augment else []
        self.transform = transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[index])), self.targets[index]


def train_step(
    student: nn.Module,
    teacher: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    batch: Sequence[Tensor],
    temperature: float = 4.0,
    alpha: float = 0.5,
) -> None:
    """One step on a batch of normalised images and targets; without a teacher, of cross-entropy alone."""
    images, targets = batch
    logits = student(images)
    loss = cross_entropy(logits, targets)
    if teacher is not None:
        with torch.no_grad():
            teacher_logits = teacher(images)
        loss = (1 - alpha) * loss + alpha * soft_target_loss(logits, teacher_logits, temperature)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    loss.item()


@torch.no_grad()
def accuracy(network: nn.Module, loader: "DataLoader[Any]") -> float:
    """The share of a loader's images that the network decides right."""
    network.eval()
    right = [network(images).argmax(1) == targets for images, targets in loader]
    network.train()
    return torch.cat(right).double().mean().item()


def build(architecture: str, num_classes: int, image_size: int) -> nn.Module:
    """A network of conf/model with fresh weights, for normalised colour images."""
    node = compose_config([f"student={architecture}"]).student
    shape = ImageShape(3, (image_size, image_size), num_classes)
    return build_network(node, "student", shape, MEAN, STD, 0, Builder()).architecture


def main(arguments: Sequence[str]) -> None:
    """Train one network and write its state dict."""
    options = _read(arguments)
    loaders = _loaders(options.images, options.batch_size)
    train_set: Any = loaders["train"].dataset
    num_classes, image_size = max(train_set.targets) + 1, train_set.images.shape[1]
    network, teacher = build(options.architecture, num_classes, image_size), None
    if options.teacher is not None:
        teacher = build(options.teacher_architecture, num_classes, image_size)
        teacher.load_state_dict(torch.load(options.teacher))
        teacher.eval()
    optimizer = torch.optim.SGD(network.parameters(), lr=options.lr, momentum=0.9, nesterov=True, weight_decay=5e-4)
    for _ in range(options.epochs):
        for batch in loaders["train"]:
            train_step(network, teacher, optimizer, batch, options.temperature, options.alpha)
        accuracy(network, loaders["val"])
    accuracy(network, loaders["test"])
    torch.save(network.state_dict(), options.output)


def _read(arguments: Sequence[str]) -> Any:
    parser = argparse.ArgumentParser()
    parser.add_argument("images", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--architecture", required=True)
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--teacher-architecture")
    for name, default in (("temperature", 4.0), ("alpha", 0.5), ("lr", 0.05), ("epochs", 1), ("batch-size", 128)):
        parser.add_argument(f"--{name}", type=type(default), default=default)
    return parser.parse_args(arguments)


def _loaders(path: Path, batch_size: int) -> "dict[str, DataLoader[Any]]":
    loaders = {}
    with np.load(path) as arrays:
        for name in ("train", "val", "test"):
            is_train = name == "train"
            split = PILDataset(arrays[f"{name}_images"], arrays[f"{name}_targets"].tolist(), augment=is_train)
            loaders[name] = DataLoader(split, batch_size, shuffle=is_train, num_workers=NUM_WORKERS)
    return loaders


if __name__ == "__main__":
    main(sys.argv[1:])
