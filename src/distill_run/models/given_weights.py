"""Weights from anywhere: what a file holds becomes the state dict of a given network, by the network's own names."""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from distill_run.errors import user_error
from distill_run.models.foreign_names import foreign_names
from distill_run.tensor_files import some_of

# Under which keys others keep a state dict; averages of the weights (EMA) come first, as in timm.
WRAPPERS = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema"),
    *("state_dict", "model_state_dict", "model", "module", "net", "network", "weights"),
)
# What torch.compile, FSDP and activation checkpoints put into names, at any depth.
INSERTED = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
COUNTER = "n_averaged"  # of torch's AveragedModel


class GivenWeights(NamedTuple):
    """A state dict by the names of a network, and what was done to get it; None where the file held just that."""

    weights: dict[str, Tensor]
    note: str | None


class _Reading(NamedTuple):
    """Our names by those of a file, which has one of the `prefixes` before `matches` of them."""

    names: Mapping[str, str]
    prefixes: tuple[str, ...]
    matches: int


def take_weights(content: object, architecture: nn.Module, given: str) -> GivenWeights:
    """The tensors in a file's content, named as the architecture names its own; whether they fit is not checked.

    Looks into the dictionaries of other programs, drops what stands before all names of the network, as in
    module.conv1.weight, and knows the names of RepDistiller and mdistiller. `given` is the key with its value, as in
    teacher_checkpoint=my_weights.pt. Raises UserError where there is no state dict, or more than one that fits.
    """
    if isinstance(content, Mapping) and content.keys() >= {"format", "architecture", "weights"}:
        raise user_error(f"{given} holds a network of distill-run", "write teacher_checkpoint= with that file")
    found = _find(content)
    if found is None:
        raise user_error(
            f"{given} is neither a network of distill-run nor a state dict",
            "save one with torch.save(network.state_dict(), path)",
        )
    held, wrappers = found
    tensors = {_without_inserted(str(key)): tensor for key, tensor in held.items()}
    own = {key: key for key in architecture.state_dict()}
    readings = [_read(tensors, names) for names in (own, *foreign_names(architecture))]
    reading = max(readings, key=lambda each: each.matches)
    if len(reading.prefixes) > 1:
        raise user_error(
            f"{given} holds more than one such network: {some_of(reading.prefixes)}",
            "save the state dict of one of them",
        )
    (prefix,) = reading.prefixes
    within = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
    weights = {reading.names.get(key, key): tensor for key, tensor in within.items()}
    done = [f"took '{'.'.join(wrappers)}'"] if wrappers else []
    if dropped := [part for part in (prefix, *INSERTED) if part and any(part in key for key in held)]:
        done.append(f"dropped {' and '.join(map(repr, dropped))} from the names")
    if reading.names is not own and reading.matches:
        done.append("read the names of RepDistiller and mdistiller")
    if left := [key for key in tensors if not key.startswith(prefix) and key != COUNTER]:
        done.append(f"left out {some_of(left)}")
    return GivenWeights(weights, ", ".join(done) or None)


def _without_inserted(key: str) -> str:
    for part in INSERTED:
        key = key.replace(part, "")
    return key


def _find(content: object) -> tuple[Mapping[str, Tensor], list[str]] | None:
    """The first state dict in nested dictionaries, and the keys that lead to it."""
    if not isinstance(content, Mapping):
        return None
    if all(isinstance(value, Tensor) for value in content.values()):
        return content, []
    for wrapper in WRAPPERS:
        if wrapper in content and (found := _find(content[wrapper])) is not None:
            return found[0], [wrapper, *found[1]]
    return None


def _read(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> _Reading:
    """The prefix that most of the names have in a file; several where all the names are there more than once."""
    counts = Counter({"": 0})
    for key in tensors:
        parts = key.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in names:
                counts["".join(f"{part}." for part in parts[:start])] += 1
    most = max(counts.values())
    best = [prefix for prefix, count in counts.items() if count == most]
    return _Reading(names, tuple(best if most == len(names) else best[:1]), most)
