"""What inference costs: latency, throughput and memory of networks, measured side by side."""

import copy
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from distill_run.data.source import ImageShape
from distill_run.engine.timing import BATCH_SIZE, Call, Inference, time_in_turn
from distill_run.listener import NOBODY, Listener, working
from distill_run.models.network import count_bytes

MOST_SECONDS = 0.1  # for a batch: a slow network is given fewer images at a time


@dataclass(frozen=True)
class Place:
    """What computes: a device, as torch names it, and the threads of a CPU."""

    device: str
    threads: int | None


class Subject(Protocol):
    """A network that can be measured, in whatever form."""

    def runs_on(self, device: str) -> bool:
        """Whether it can compute on that device."""

    def start(self, place: Place, num_images: int) -> Call:
        """A function that computes the logits of so many images, and waits for them."""

    def memory_bytes(self, place: Place, num_images: int) -> int | None:
        """See Inference."""


def measure_speeds(
    subjects: Sequence[Subject], device: torch.device, listener: Listener = NOBODY
) -> list[tuple[Inference, ...]]:
    """For each subject, what one image and what a batch costs: on the device, and on the CPU.

    The CPU computes with one thread and with as many as torch uses. A batch has 64 images, or so few that it takes
    about a tenth of a second; where that is one image, it is measured once. The subjects take turns.
    """
    found: list[list[Inference]] = [[] for _ in subjects]
    places = _places(device.type)
    with working(listener, "measuring the speed of inference", 2 * len(places)) as tell:
        for done, place in enumerate(places):
            with _threads(place.threads):
                sizes = {index: 1 for index, subject in enumerate(subjects) if subject.runs_on(place.device)}
                singles = _measure(subjects, sizes, place)
                tell(2 * done + 1)
                sizes = {index: _batch_size(single.median) for index, single in singles.items()}
                batches = _measure(subjects, {index: size for index, size in sizes.items() if size > 1}, place)
                tell(2 * done + 2)
            for measured in (singles, batches):
                for index, inference in measured.items():
                    found[index].append(inference)
    return [tuple(each) for each in found]


def _places(device: str) -> list[Place]:
    threads = sorted({1, torch.get_num_threads()})
    return [*([] if device == "cpu" else [Place(device, None)]), *(Place("cpu", number) for number in threads)]


def _batch_size(latency: float) -> int:
    """The number of images in a batch, for a network that needs so many seconds for one."""
    size = BATCH_SIZE
    while size > 1 and size * latency > MOST_SECONDS:
        size //= 2
    return size


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """Within the block, torch computes with so many threads of the CPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _measure(subjects: Sequence[Subject], sizes: Mapping[int, int], place: Place) -> dict[int, Inference]:
    """What batches of these sizes cost; `sizes` has one for the index of each subject that is measured."""
    timed = time_in_turn([subjects[index].start(place, size) for index, size in sizes.items()])
    return {
        index: Inference(
            device=place.device,
            threads=place.threads,
            batch_size=size,
            repetitions=quartiles.repetitions,
            lower_quartile=quartiles.lower,
            median=quartiles.median,
            upper_quartile=quartiles.upper,
            memory_bytes=subjects[index].memory_bytes(place, size),
        )
        for (index, size), quartiles in zip(sizes.items(), timed, strict=True)
    }


@dataclass(frozen=True)
class TorchSubject:
    """A network on the CPU that takes images of a shape (C, H, W), as float in 0..1 or as uint8.

    A network that was exported stays on the CPU: `is_movable` is false.
    """

    network: nn.Module
    shape: tuple[int, int, int]
    is_uint8: bool = False
    is_movable: bool = True

    @classmethod
    def of(cls, network: nn.Module, shape: ImageShape) -> Self:
        """A copy of a network as `load_network` would give it: on the CPU, in eval mode, in its own precision."""
        same = copy.deepcopy(network).to("cpu").to(memory_format=torch.contiguous_format)
        return cls(same.eval(), (shape.in_channels, *shape.image_size))

    def runs_on(self, device: str) -> bool:
        """See Subject."""
        return self.is_movable or device == "cpu"

    def start(self, place: Place, num_images: int) -> Call:
        """See Subject."""
        network, images = self._at(place, num_images)
        wait = torch.get_device_module(place.device).synchronize

        @torch.no_grad()
        def compute() -> None:
            network(images)
            wait()

        return compute

    def memory_bytes(self, place: Place, num_images: int) -> int | None:
        """See Subject."""
        if place.device not in ("cpu", "cuda"):
            return None
        network, images = self._at(place, num_images)
        with torch.no_grad():
            outputs = _cuda_peak(network, images) if place.device == "cuda" else _cpu_peak(network, images)
        return count_bytes(network) + outputs

    def images(self, num_images: int) -> Tensor:
        """Images (N, C, H, W) of random pixels, the same in every call."""
        pixels = torch.randint(256, (num_images, *self.shape), generator=torch.Generator().manual_seed(0))
        return pixels.to(torch.uint8) if self.is_uint8 else pixels / 255

    def _at(self, place: Place, num_images: int) -> tuple[nn.Module, Tensor]:
        images = self.images(num_images)
        if place.device == "cpu":
            return self.network, images
        return copy.deepcopy(self.network).to(place.device), images.to(place.device)


def _cuda_peak(network: nn.Module, images: Tensor) -> int:
    """The most bytes that the outputs and the scratch memory of the layers take at one time."""
    torch.cuda.reset_peak_memory_stats()
    before: int = torch.cuda.memory_allocated()
    network(images)
    peak: int = torch.cuda.max_memory_allocated()
    return peak - before


def _cpu_peak(network: nn.Module, images: Tensor) -> int:
    """The same without the scratch memory, which a CPU's kernels do not tell."""
    outputs = _LiveOutputs([images, *network.state_dict().values()])
    with outputs:
        network(images)
    return outputs.peak


class _LiveOutputs(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors that operations give out and that are still needed; those `given` do not count.

    Tensors that share their memory, as views do, count once.
    """

    def __init__(self, given: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._live = 0
        self._known = {tensor.untyped_storage().data_ptr() for tensor in given}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outputs = func(*args, **(kwargs or {}))
        for output in tree_leaves(outputs):
            if isinstance(output, Tensor):
                self._count(output.untyped_storage())
        return outputs

    def _count(self, storage: torch.UntypedStorage) -> None:
        place, num_bytes = storage.data_ptr(), storage.nbytes()
        if place not in self._known:
            self._known.add(place)
            self._live += num_bytes
            self.peak = max(self.peak, self._live)
            weakref.finalize(storage, self._free, place, num_bytes)

    def _free(self, place: int, num_bytes: int) -> None:
        self._known.discard(place)
        self._live -= num_bytes
