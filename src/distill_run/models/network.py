"""A network: an architecture together with its normalisation; and the costs of a network."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from distill_run.build import Builder
from distill_run.data.source import ImageShape
from distill_run.errors import user_error
from distill_run.models.class_outputs import ClassOutputs


class Network(nn.Module):
    """Images (N, C, H, W) with values in 0..1 to logits (N, K).

    The network holds the mean and the standard deviation of each channel. So a teacher sees images as it saw them in
    its own training, even if the student has another normalisation.

    `classes` are the names of the K classes, in the order of the logits, and `image_size` is the (height, width) that
    the network was built for. They are () and None where they are not known. `crop_ratio` is the share of a
    photograph's centre that is resized to `image_size`. `class_outputs` makes the K logits of those of an architecture
    that was trained on other classes; None where it has just these.
    """

    mean: Tensor
    std: Tensor
    class_outputs: ClassOutputs | None

    def __init__(self, architecture: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.architecture = architecture
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))
        self.classes: tuple[str, ...] = ()
        self.image_size: tuple[int, int] | None = None
        self.crop_ratio = 1.0
        self.class_outputs = None

    @property
    def shape(self) -> ImageShape:
        """What the network takes and gives; its image size and classes must be known."""
        assert self.image_size is not None
        return ImageShape(self.mean.numel(), self.image_size, len(self.classes))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K) of images (N, C, H, W) in 0..1."""
        normalised = (images - self.mean).div_(self.std)  # in place: to make a tensor takes longer than to divide
        logits = logits_of(self.architecture(normalised), self.architecture)
        return logits if self.class_outputs is None else self.class_outputs(logits)


def logits_of(output: Any, architecture: nn.Module) -> Tensor:
    """The logits in what the forward of an architecture returns: a tensor, or the one that is called `logits`.

    So networks of Hugging Face and those with auxiliary outputs can be used, as mappings or with an attribute. Raises
    UserError for anything else.
    """
    if isinstance(output, Tensor):
        return output
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    raise user_error(
        f"the forward of {type(architecture).__qualname__} returns a {type(output).__name__}, not logits",
        "let it return one tensor of shape (N, K), K for the classes; or a dictionary that has it as `logits`",
    )


def build_network(
    node: Mapping[str, Any],
    key: str,
    shape: ImageShape,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int,
    builder: Builder,
) -> Network:
    """The network that a model's YAML describes, with initial weights that depend on `seed` alone.

    An architecture with published weights has an attribute `normalisation`, (mean, std), which replaces `mean` and
    `std`. Raises UserError if the constructor refuses its arguments.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        architecture = builder.build_kind(
            nn.Module,
            "derive the class from torch.nn.Module",
            node,
            key,
            in_channels=shape.in_channels,
            image_size=shape.image_size,
            num_classes=shape.num_classes,
        )
    network = Network(architecture, *getattr(architecture, "normalisation", (mean, std)))
    network.image_size = shape.image_size
    return network


@contextmanager
def in_eval_mode(network: nn.Module) -> Iterator[None]:
    """Within the block, the network is in eval mode; after it, in the mode in which it was before."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)


def count_params(network: nn.Module) -> int:
    """The number of weights, trained or frozen; buffers are not counted."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_bytes(network: nn.Module) -> int:
    """The size of all weights and buffers in bytes."""
    return sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())


def mean_work(network: nn.Module, shape: ImageShape) -> float:
    """The multiply-accumulate operations for each value that a convolution or a linear layer gives out, on average.

    It grows with the width of the layers: wide layers compute, narrow ones wait for memory.
    """
    num_outputs = 0

    def count(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        nonlocal num_outputs
        num_outputs += output.numel()

    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    macs = count_macs(network, shape)
    for handle in handles:
        handle.remove()
    return macs / num_outputs if num_outputs else 0.0


def count_macs(network: nn.Module, shape: ImageShape) -> int:
    """Multiply-accumulate operations for one image: half the FLOPs of its convolutions and matrix products."""
    tensor = next(chain(network.parameters(), network.buffers()))  # own code may have no parameters
    image = torch.zeros(1, shape.in_channels, *shape.image_size, device=tensor.device)
    with in_eval_mode(network):
        return macs_of(network, image)


def macs_of(network: nn.Module, images: Tensor) -> int:
    """The same for these images, in whichever mode the network is."""
    # The counter does not see fused kernels of attention, so attention is computed as two matrix products here.
    attention = sdpa_kernel(SDPBackend.MATH)
    with torch.no_grad(), attention, FlopCounterMode(display=False) as counter:
        network(images)
    flops: int = counter.get_total_flops()
    return flops // 2
