"""The page that `distill-run --help` prints."""

import textwrap
from collections.abc import Mapping
from pathlib import Path

from omegaconf import OmegaConf

from distill_run.config.compose import compose, load_options, option_names
from distill_run.errors import show

WIDTH = 100  # of the page, where the terminal is not narrower
LEAST_WIDTH = 28  # of the explanations beside what they explain; with less room they stand below it

ABOUT = (
    "distill-run trains a teacher, trains the student alone, distils the student from the teacher, tests all three, "
    "and reports what distillation gained."
)

USAGE = {
    "distill-run [group=option ...] [key=value ...]": "one run",
    "distill-run -m key=value,value ... [key=value ...]": "a sweep: one run for each combination",
    "distill-run +sweep=NAME [key=value ...]": "a sweep of a preset",
    "distill-run resume=outputs/runs/DATE/TIME": "continue an interrupted run",
    "distill-run verify=outputs/runs/DATE/TIME": "train a run again and compare: do its numbers come back?",
}

OTHER_COMMANDS = {
    "distill-export RUN --format FORMAT": "the student in other formats: ONNX, torch.export, safetensors; int8",
    "distill-predict RUN IMAGE|FOLDER...": "the classes that student and teacher give to photographs",
    "distill-measure FILE...": "size, latency, throughput and memory of networks, side by side",
    "distill-report DIR...": "one report of all runs in some folders; --watch keeps it up to date",
    "distill-search": "search for values between grid points, with Optuna",
    "distill-store": "what is kept for reuse: ls, verify, gc",
    "python -m distill_run": "the same as distill-run",
}

OPTIONS = {
    "-m, --multirun": "a sweep over every key that has several values",
    "--cfg job --resolve": "show the configuration of a command without running it",
    "--config-dir DIR": "a folder of your own models, modes, datasets, augmentations, watchers; with --help, they are "
    "listed",
    "--info, --hydra-help": "how the configuration is composed; Hydra's own help",
    "--version": "the version of distill-run",
    "-sc install=bash": "how to install shell completion (bash, zsh, fish)",
}

EXAMPLES = (
    "distill-run",
    "distill-run teacher=cnn_large student=cnn_tiny mode=soft mode.temperature=8",
    "distill-run mode=soft also=crd mode.also.crd.weight=0.8",
    "distill-run teacher=resnet56 student=resnet20 assistants=resnet32",
    "distill-run dataset=image_folder dataset.root=photos",
    "distill-run training/student/optimizer=adamw training.student.optimizer.lr=0.002",
    "distill-run training.teacher.lr_search=[0.003,0.01,0.03,0.1]",
    "distill-run experiment=founding_cifar10",
    "distill-run -m mode.temperature=1,2,4,8 mode.alpha=0.1,0.5,0.9 seed=0,1,2",
    "distill-run +sweep=temperature_alpha hydra/launcher=joblib hydra.launcher.n_jobs=2",
    'eval "$(distill-run -sc install=bash)"',
)

GROUPS = (
    "dataset",
    "teacher",
    "student",
    "mode",
    "also",
    "more_teachers",
    "assistants",
    "augment",
    "watchers",
    "tracker",
    "training",
    "training/teacher/optimizer",
    "training/teacher/schedule",
    "training/student/optimizer",
    "training/student/schedule",
    "device",
    "experiment",
)

KEYS = {
    "seed": "for student and baseline: weights, order, views",
    "repeats": "seeds of one run; null: the dataset's",
    "teacher_seed": "for the teacher; a list: several teachers",
    "baseline": "false: do not train the student alone",
    "measure_speed": "latency, throughput and memory",
    "teacher_checkpoint": "a teacher that is already trained, or a list",
    "teacher_normalisation": "of a state dict: dataset, published or values",
    "teacher_classes": "of other classes: imagenet, a file or outputs",
    "teacher_trains": "all; head or nothing of a pretrained network",
    "teacher_head_views": "views whose features the head learns from",
    "teacher_weights": "for several teachers, as in [2,1]",
    "checkpoint.every_minutes": "save within an epoch; 0: only at its end",
    "store_dir": "where teachers, baselines and logits are kept",
    "logit_bank_gigabytes": "disk for a teacher's logits; 0: run it live",
    "logit_bank_top_k": "keep the largest logits alone; null: all",
    "robustness_images": "test images that are corrupted; 0: none",
    "export": "also write the student as onnx, or a list of formats",
    "export_int8": "of onnx: also with 8-bit weights and activations",
    "dataset.root": "the folder of the images",
    "dataset.test_fraction": "of each class, if there is no test split",
    "dataset.train_fraction": "below 1: fewer training images",
    "dataset.augment.crop.padding": "pixels; other keys: flip.enabled, cutout.size",
    "mode.temperature": "softens both distributions; above 0",
    "mode.alpha": "weight of the distillation term, 0 to 1",
    "mode.divergence": "forward, reverse or jensen_shannon",
    "training.views": "views that epochs cycle through; null: always new",
    "training.view_seed": "for the student's views; by default the seed",
    "training.student.epochs": "null: by the number of images; also .teacher",
    "training.student.batch_size": "images per step; null: by their number",
    "training.student.optimizer.lr": "learning rate",
    "training.student.schedule.warmup_epochs": "epochs of linear warm-up",
    "training.student.clip_norm": "largest gradient norm",
    "training.student.label_smoothing": "of the cross-entropy",
    "training.student.mixup": "0: off; also training.student.cutmix",
    "training.student.patience": "stop after this many epochs without a gain",
    "training.student.lr_search": "learning rates to try, as in [0.01,0.1]",
    "device.precision": "auto, fp32, tf32, bf16 or fp16",
    "device.compile": "off, default or max: torch.compile in training",
}


def help_page(extra_dir: Path | None = None, width: int = WIDTH) -> str:
    """The text of the help page, at most `width` columns wide, with the options of the user's own folder.

    Its groups and default values are read from the YAML files.
    """
    composed = compose(extra_dir=extra_dir)
    choices = composed.hydra.runtime.choices
    groups = {group: _options_of(group, choices[group], extra_dir) for group in GROUPS}
    groups["+sweep"] = "  ".join(option_names("sweep", extra_dir))
    keys = {f"{key}={show(OmegaConf.select(composed.config, key))}": meaning for key, meaning in KEYS.items()}
    sections = {
        "Usage": _entries(USAGE, width),
        "Groups (the default comes first)": _entries(groups, width),
        "Keys that are often set": _entries(keys, width),
        "Other commands": _entries(OTHER_COMMANDS, width),
        "Options": _entries(OPTIONS, width),
        "Examples": "\n".join(_example(command, width) for command in EXAMPLES),
    }
    parts = [textwrap.fill(ABOUT, width), *(f"{title}\n{text}" for title, text in sections.items())]
    return "\n\n".join(parts) + "\n"


def _entries(entries: Mapping[str, str], width: int) -> str:
    """A line for each entry with its explanation beside it, or below it where the page is too narrow for both."""
    margin = 4 + max(map(len, entries))
    longest_word = max(len(word) for words in entries.values() for word in words.split())
    is_beside = margin + max(longest_word, LEAST_WIDTH) <= width
    indent = " " * (margin if is_beside else 6)
    lines = []
    for entry, words in entries.items():
        first = f"  {entry:<{margin - 2}}" if is_beside else indent
        if not is_beside:
            lines.append(f"  {entry}")
        lines.append(
            textwrap.fill(words, width, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False)
        )
    return "\n".join(lines)


def _example(command: str, width: int) -> str:
    """A command, continued on a second line as a shell reads it where the page is too narrow."""
    lines = textwrap.wrap(command, width - 2, initial_indent="  ", subsequent_indent="      ", break_on_hyphens=False)
    return " \\\n".join(lines)


def _options_of(group: str, default: str | None, extra_dir: Path | None) -> str:
    """The options of a group, or the name of the group that has the same options."""
    same = {"also": "mode", "more_teachers": "teacher", "assistants": "teacher"}
    if group in same:
        return f"none, one or several of those of {same[group]}, as in '{group}=[A,B]'"
    if group == "student":
        return f"{default}, and those of teacher"
    names = option_names(group, extra_dir)
    if group == "watchers":
        own = [name for name in names if name not in option_names(group)]
        return f"none, one or several of your own: {'  '.join(own) or 'see --config-dir'}"
    if group == "tracker":
        return f"none, one or several: {'  '.join(names)}"
    if group == "augment":
        presets = [name for name, node in load_options(group, extra_dir).items() if "_target_" not in node]
        steps = [name for name in names if name not in presets]
        return f"the dataset's; a preset: {'  '.join(presets)}; and one or several more: {'  '.join(steps)}"
    if group == "experiment":
        packaged = option_names(group)
        names = [name for name in names if "/" not in name or name not in packaged]
        names += ["cifar10/short", "cifar10/STUDENT_from_TEACHER_MODE", "cifar100/STUDENT_from_TEACHER_MODE"]
    return "  ".join(sorted(names, key=lambda name: name != default))
