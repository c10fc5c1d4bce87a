"""The skeleton's schema: every key that the runner reads, with what it accepts.

`read_settings` turns a plain mapping into these dataclasses or tells all mistakes at once. What stands under a
component (a mapping with a `_target_`) is the business of that component's constructor.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

from distill_run import rules
from distill_run.config.export_formats import EXPORT_FORMATS
from distill_run.errors import Mistake, RejectedValueError, UserError, show, unknown_key
from distill_run.rules import Rule, one_or_several, optional, whole

Component = Annotated[dict[str, Any], rules.COMPONENT]
Option = Annotated[dict[str, Any], rules.OPTION]
T = TypeVar("T")


@dataclass(frozen=True)
class Names:
    """Which file of each config group was chosen."""

    dataset: Annotated[str, rules.TEXT]
    teacher: Annotated[str, rules.TEXT]
    student: Annotated[str, rules.TEXT]
    mode: Annotated[str, rules.TEXT]


@dataclass(frozen=True)
class DatasetSettings:
    """Where the images come from, how they are split and normalised, and the steps that augment them, in order."""

    source: Component
    image_size: Annotated[int | None, optional(whole(1))]
    crop_ratio: Annotated[float | None, optional(rules.POSITIVE_FRACTION)]
    memory_gigabytes: Annotated[float | None, optional(rules.NOT_NEGATIVE)]
    workers: Annotated[int | None, optional(whole(0))]
    on_error: Annotated[str, rules.one_of("refuse", "skip")]
    root: Annotated[str | None, optional(rules.TEXT)]
    train: Annotated[str | None, optional(rules.TEXT)]
    val: Annotated[str | None, optional(rules.TEXT)]
    test: Annotated[str | None, optional(rules.TEXT)]
    num_classes: Annotated[int | None, optional(whole(2))]
    repeats: Annotated[int, whole(1)]
    test_fraction: Annotated[float, rules.INSIDE_UNIT]
    val_fraction: Annotated[float, rules.INSIDE_UNIT]
    train_fraction: Annotated[float, rules.POSITIVE_FRACTION]
    sampling: Annotated[str | None, optional(rules.one_of("balanced"))]
    unlabelled: Annotated[str | None, optional(rules.TEXT)]
    unlabelled_share: Annotated[float | None, optional(rules.INSIDE_UNIT)]
    split_seed: Annotated[int, rules.SEED]
    mean: Annotated[list[float] | None, optional(rules.CHANNEL_MEANS)]
    std: Annotated[list[float] | None, optional(rules.CHANNEL_STDS)]
    augment: Annotated[dict[str, Any], rules.COMPONENTS]


@dataclass(frozen=True)
class RecipeSettings:
    """How one network is trained; where epochs or batch size are None, the number of training images decides them."""

    epochs: Annotated[int | None, optional(whole(1))]
    batch_size: Annotated[int | None, optional(whole(2))]
    clip_norm: Annotated[float | None, optional(rules.POSITIVE)]
    label_smoothing: Annotated[float, rules.BELOW_ONE]
    mixup: Annotated[float, rules.NOT_NEGATIVE]
    cutmix: Annotated[float, rules.NOT_NEGATIVE]
    patience: Annotated[int | None, optional(whole(1))]
    accumulation: Annotated[int, whole(1)]
    ema: Annotated[float | None, optional(rules.INSIDE_UNIT)]
    decay_norms: Annotated[bool, rules.FLAG]
    backbone_lr_factor: Annotated[float | None, optional(rules.POSITIVE_FRACTION)]
    freeze_batch_norm: Annotated[bool, rules.FLAG]
    lr_search: Annotated[list[float] | None, optional(rules.LEARNING_RATES)]
    lr_search_epochs: Annotated[int, whole(1)]
    optimizer: Option
    schedule: Option


@dataclass(frozen=True)
class Recipe(RecipeSettings):
    """How one network is trained, with nothing left to decide."""

    epochs: int
    batch_size: int


@dataclass(frozen=True)
class TrainingSettings:
    """The recipes of both networks, and what they share."""

    views: Annotated[int | None, optional(whole(1))]
    view_seed: Annotated[int, rules.SEED]
    class_weights: Annotated[str | list[float] | None, optional(rules.CLASS_WEIGHTS)]
    select_by: Annotated[str, rules.one_of("accuracy", "balanced_accuracy", "macro_f1", "nll")]
    teacher: RecipeSettings
    student: RecipeSettings


@dataclass(frozen=True)
class DeviceSettings:
    """What computes, and in which precision."""

    kind: Annotated[str, rules.one_of("auto", "cpu", "cuda", "mps")]
    precision: Annotated[str, rules.one_of("auto", "fp32", "tf32", "bf16", "fp16")]
    channels_last: Annotated[bool, rules.FLAG]
    compile: Annotated[str, rules.one_of("off", "default", "max")]
    deterministic: Annotated[bool, rules.FLAG]
    num_processes: Annotated[int, whole(1)]
    sync_batch_norm: Annotated[bool, rules.FLAG]

    @property
    def inputs(self) -> dict[str, Any]:
        """What a number can depend on: some keys change nothing but on CUDA, or with several processes.

        How many processes share the work changes numbers only where batch norm knows the images of one alone.
        """
        values = asdict(self)
        if self.kind != "cuda":
            del values["deterministic"]
            values["compile"] = "off" if self.compile == "off" else "default"
        if self.sync_batch_norm or self.num_processes == 1:
            del values["num_processes"], values["sync_batch_norm"]
        return values


@dataclass(frozen=True)
class CheckpointSettings:
    """When last.pt is written, beside the end of each epoch."""

    every_minutes: Annotated[float | None, optional(rules.NOT_NEGATIVE)]


@dataclass(frozen=True)
class Settings:
    """A whole configuration, checked."""

    seed: Annotated[int, rules.SEED]
    teacher_seed: Annotated[int | list[int], one_or_several(rules.SEED)]
    repeats: Annotated[int | None, optional(whole(1))]
    baseline: Annotated[bool, rules.FLAG]
    measure_speed: Annotated[bool, rules.FLAG]
    teacher_checkpoint: Annotated[str | list[str] | None, optional(one_or_several(rules.TEXT))]
    teacher_normalisation: Annotated[str | list[list[float]] | None, optional(rules.NORMALISATION)]
    teacher_classes: Annotated[str | list[Any] | None, optional(rules.TEACHER_CLASSES)]
    teacher_trains: Annotated[str, rules.one_of("all", "head", "nothing")]
    teacher_head_views: Annotated[int, whole(1)]
    teacher_weights: Annotated[list[float] | None, optional(rules.WEIGHTS)]
    resume: Annotated[str | None, optional(rules.TEXT)]
    verify: Annotated[str | None, optional(rules.TEXT)]
    checkpoint: CheckpointSettings
    store_dir: Annotated[str, rules.TEXT]
    logit_bank_gigabytes: Annotated[float, rules.NOT_NEGATIVE]
    logit_bank_top_k: Annotated[int | None, optional(whole(1))]
    robustness_images: Annotated[int, whole(0)]
    export: Annotated[str | list[str] | None, optional(one_or_several(rules.one_of(*EXPORT_FORMATS)))]
    export_int8: Annotated[bool, rules.FLAG]
    trusted_packages: Annotated[list[str], rules.list_of(rules.TEXT, "a list of names of Python packages", least=0)]
    code_dir: Annotated[str | None, optional(rules.TEXT)]
    names: Names
    dataset: DatasetSettings
    teacher: Component
    more_teachers: Annotated[dict[str, Any], rules.COMPONENTS]
    assistants: Annotated[dict[str, Any], rules.COMPONENTS]
    watchers: Annotated[dict[str, Any], rules.COMPONENTS]
    tracker: Annotated[dict[str, Any], rules.COMPONENTS]
    student: Component
    mode: Component
    training: TrainingSettings
    device: DeviceSettings

    @property
    def told(self) -> dict[str, dict[str, Any]]:
        """The watchers and the trackers by their keys."""
        lists = {"watchers": self.watchers, "tracker": self.tracker}
        return {f"{key}.{name}": node for key, nodes in lists.items() for name, node in nodes.items()}

    @property
    def export_formats(self) -> list[str]:
        """The formats that the student is exported in at the end of the run."""
        return [self.export] if isinstance(self.export, str) else self.export or []

    @property
    def command(self) -> str:
        """The command line that says the same; empty where none is known, as after dataclasses.replace."""
        return str(vars(self).get("_command", ""))

    def said_by(self, command: str) -> "Settings":
        """The same settings, which remember the command line that they come from."""
        same = replace(self)
        vars(same)["_command"] = command
        return same


def read_settings(config: Mapping[str, Any]) -> Settings:
    """Typed settings of a plain, resolved configuration; raises UserError with every mistake in it."""
    mistakes: list[Mistake] = []
    settings = _read(Settings, config, "", mistakes)
    if mistakes:
        raise UserError(mistakes)
    return settings


def _read(cls: type[T], node: Mapping[str, Any], prefix: str, mistakes: list[Mistake]) -> T:
    """Build dataclass `cls` from `node`; where that has mistakes the result is not to be used."""
    hints = get_type_hints(cls, include_extras=True)
    for key in [name for name in node if name not in hints]:
        mistakes.append(unknown_key(f"{prefix}{key}", (f"{prefix}{name}" for name in hints)))
    values = {}
    for field in fields(cls):  # type: ignore[arg-type]
        key, hint = f"{prefix}{field.name}", hints[field.name]
        if field.name not in node:
            common = ", or begin the dataset's file with defaults: [_common]" if prefix == "dataset." else ""
            mistakes.append(Mistake(f"{key} is missing", f"add it, as in {key}=...{common}"))
        elif is_dataclass(hint):
            child = node[field.name]
            if isinstance(child, Mapping):
                values[field.name] = _read(hint, child, f"{key}.", mistakes)  # type: ignore[arg-type]
            else:
                mistakes.append(Mistake(f"{key}={show(child)} is not accepted", "it is a group of keys"))
        else:
            values[field.name] = node[field.name]
            _check_value(key, node[field.name], get_args(hint)[1], mistakes)
    return cls(**values) if len(values) == len(hints) else cls.__new__(cls)


def _check_value(key: str, value: object, rule: Rule, mistakes: list[Mistake]) -> None:
    try:
        if value == "???":
            raise RejectedValueError(key, "nothing", f"{key}=VALUE; it has no default")
        rule.check(key, value)
    except RejectedValueError as error:
        mistakes.extend(error.mistakes)
    if rule in (rules.COMPONENT, rules.OPTION) and isinstance(value, dict):
        for name, own_rule in rules.component_rules(value).items():
            _check_value(f"{key}.{name}", value[name], own_rule, mistakes)
