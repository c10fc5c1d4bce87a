"""Classifiers of torchvision and timm, with fresh weights or with those that the libraries publish."""

import pickle
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from distill_run.errors import RejectedValueError, first_line, user_error
from distill_run.models.fitting import (
    adapt_first_convolution,
    first_convolution,
    fit_to_images,
)
from distill_run.models.given_weights import take_weights
from distill_run.models.layers import last_layer
from distill_run.models.published import (
    check_name,
    published_by_timm,
    published_by_torchvision,
    timm_library,
    timm_names,
)
from distill_run.rules import FLAG, TEXT, Rule, list_of, optional, whole
from distill_run.tensor_files import load, load_weights

SIZES = list_of(whole(1), "", least=2)
INPUT_SIZE = optional(
    Rule(
        lambda v: whole(1).accepts(v) or (SIZES.accepts(v) and len(v) == 2),
        "pixels a side, or [height,width] in pixels",
    )
)
PRETRAINED = Rule(lambda v: FLAG.accepts(v) or TEXT.accepts(v), f"{FLAG.words}, or a file with a state dict")
# Arguments of timm.create_model that name files or addresses of weights: a stranger's network must not choose them.
NAMES_FILES = ("checkpoint_path", "cache_dir", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained", "weights")
ARGUMENTS = Rule(
    lambda v: isinstance(v, dict) and not any(name in v for name in NAMES_FILES),
    "further arguments of the model's constructor, as in {dropout: 0.2}; weights have keys of their own",
)
# What fetching weights raises: URLError is an OSError; torchvision raises RuntimeError where their hash is wrong, or
# they do not fit. The others come from files that were cut short.
FAILURES = (
    OSError,
    HTTPException,
    RuntimeError,
    EOFError,
    LookupError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    SafetensorError,
)


def torchvision_model(
    *,
    in_channels: int,
    image_size: tuple[int, int],
    num_classes: int,
    name: str,
    pretrained: bool | str,
    input_size: int | list[int] | None,
    arguments: dict[str, Any],
) -> nn.Module:
    """The classifier with that name in torchvision.models: images (N, C, H, W) to logits (N, K).

    Images are resized to `input_size`. None means: not resized; or, with `pretrained`, resized to the size that the
    weights were trained with. `pretrained` loads the library's default weights, or those in the file that it names, and
    takes the normalisation of the published ones. The last layer is new if the number of classes differs. If the number
    of channels differs from that of the weights the first convolution is new, too; pretrained kernels are then summed
    over their channels and shared out. Parameters keep the library's names. Raises UserError if the library does not
    know the name, or cannot fetch or build the model.
    """
    from torchvision import models  # slow to import, and few runs need it

    check_name(name, models.list_models(module=models), "torchvision")
    _check_keys(pretrained, input_size, arguments)
    published = published_by_torchvision(name) if pretrained else None
    size = _size(input_size, published.input_size if published else image_size)
    if name.startswith("vit_"):  # all others take images of any size that is large enough
        arguments = {"image_size": size[0], **arguments}
    model = models.get_model(name, weights=None, num_classes=num_classes, **arguments)
    if pretrained is True:
        fetched = _fetch(partial(models.get_model, name, weights="DEFAULT", **arguments), name, _torchvision_file(name))
        _load_all_but_head(model, fetched.state_dict(), in_channels, name)
    elif pretrained:
        _load_all_but_head(model, _read(pretrained, model), in_channels, name)
    elif in_channels != 3:
        adapt_first_convolution(model, in_channels, keeps_kernels=False)
    return fit_to_images(model, name, in_channels, image_size, size, published)


def timm_model(
    *,
    in_channels: int,
    image_size: tuple[int, int],
    num_classes: int,
    name: str,
    pretrained: bool | str,
    input_size: int | list[int] | None,
    arguments: dict[str, Any],
) -> nn.Module:
    """The classifier with that name in timm; the arguments are those of `torchvision_model`.

    A name may choose the weights, as in resnet18.a1_in1k. A constructor that takes `img_size` receives the size of the
    images.
    """
    timm = timm_library()
    check_name(name, timm_names(), "timm")
    _check_keys(pretrained, input_size, arguments)
    if pretrained is True and not timm.is_model_pretrained(name):
        raise RejectedValueError("pretrained", pretrained, f"false; timm has no weights for {name}")
    published = published_by_timm(name) if pretrained else None
    size = _size(input_size, published.input_size if published else image_size)
    shape = {"num_classes": num_classes, "in_chans": 3 if isinstance(pretrained, str) else in_channels}
    create = partial(timm.create_model, name, pretrained=pretrained is True, **shape, **arguments)
    build = partial(_create, create, size)
    model = _fetch(build, name, _timm_folder(name)) if pretrained is True else build()
    if isinstance(pretrained, str):
        _load_all_but_head(model, _read(pretrained, model), in_channels, name)
    return fit_to_images(model, name, in_channels, image_size, size, published)


def head_of_others(model: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    """The keys of the layer that decides whose tensors in a state dict are those of other classes.

    It is the last linear layer, or, where there is none, as in squeezenet, the last convolution.
    """
    expected = model.state_dict()
    head: tuple[str, nn.Module] | None = last_layer(model, nn.Linear) or last_layer(model, nn.Conv2d)
    keys = [f"{head[0]}.{name}" for name in ("weight", "bias")] if head else []
    return [key for key in keys if key in weights and key in expected and weights[key].shape != expected[key].shape]


def num_outputs(model: nn.Module, weights: Mapping[str, Tensor], num_classes: int) -> int:
    """How many classes a state dict is for, by its last layer; `num_classes` are those of the model."""
    others = head_of_others(model, weights)
    return len(weights[others[0]]) if others else num_classes


def _read(path: str, model: nn.Module) -> dict[str, Tensor]:
    """The state dict in a file; the model keeps a note of what was taken, if the file held more than that."""
    weights, vars(model)["weights_note"] = take_weights(load(Path(path)), model, f"pretrained={path}")
    return weights


def _load_all_but_head(model: nn.Module, weights: Mapping[str, Tensor], in_channels: int, name: str) -> None:
    """Load a state dict into a model for three channels, which then takes images of `in_channels`.

    The layer that decides stays new where the weights are those of other classes.
    """
    is_for_channels = in_channels != 3 and _num_channels(model, weights) == in_channels
    if is_for_channels:
        adapt_first_convolution(model, in_channels, keeps_kernels=False)
    fresh = {key: model.state_dict()[key] for key in head_of_others(model, weights)}
    load_weights(model, {**weights, **fresh}, name)
    if in_channels != 3 and not is_for_channels:
        adapt_first_convolution(model, in_channels, keeps_kernels=True)


def _num_channels(model: nn.Module, weights: Mapping[str, Tensor]) -> int | None:
    """The channels of the images that a state dict is for; None where it lacks the model's first convolution."""
    path, _ = first_convolution(model)
    kernels = weights.get(f"{path}.weight")
    return None if kernels is None or kernels.ndim < 2 else kernels.shape[1]


def _check_keys(pretrained: bool | str, input_size: int | list[int] | None, arguments: dict[str, Any]) -> None:
    PRETRAINED.check("pretrained", pretrained)
    INPUT_SIZE.check("input_size", input_size)
    ARGUMENTS.check("arguments", arguments)


def _size(input_size: int | list[int] | None, default: tuple[int, int]) -> tuple[int, int]:
    if input_size is None:
        return default
    height, width = (input_size, input_size) if isinstance(input_size, int) else input_size
    return height, width


def _fetch(build: Callable[[], nn.Module], name: str, cached: Path) -> nn.Module:
    """Build a model with weights from the library's cache or the internet; raises UserError if neither has them.

    `cached` is where the library keeps them.
    """
    try:
        return build()
    except FAILURES as error:
        if cached.exists():
            raise user_error(
                f"the published weights of {name} in {cached} cannot be read: {first_line(error)}",
                f"remove {cached}, and they are fetched again",
            ) from error
        raise user_error(
            f"the published weights of {name} cannot be fetched: {first_line(error)}",
            "connect once; or train without them, as in teacher.pretrained=false; or give trained ones, as in "
            "teacher_checkpoint=teacher.pt",
        ) from error


def _torchvision_file(name: str) -> Path:
    from torchvision import models

    return Path(torch.hub.get_dir(), "checkpoints", Path(models.get_model_weights(name).DEFAULT.url).name)


def _timm_folder(name: str) -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    known = timm_library().get_pretrained_cfg(name)
    return Path(HF_HUB_CACHE, f"models--{(known.hf_hub_id or 'timm/').replace('/', '--')}")


def _create(create: Callable[..., nn.Module], size: tuple[int, int]) -> nn.Module:
    try:
        return create(img_size=size)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        return create()  # most convolutional networks take images of any size
