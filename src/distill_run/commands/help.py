"""The page that `distill-run --help` prints."""

import textwrap

from omegaconf import OmegaConf

from distill_run.config.compose import LISTS, ROLES, compose, config_dir, option_names
from distill_run.errors import show

PAGE = """\
distill-run trains a teacher, trains the student alone, distils the student from the
teacher, tests all three, and reports what distillation gained.

Usage
  distill-run [group=option ...] [key=value ...]         one run
  distill-run -m key=value,value ... [key=value ...]     a sweep: one run for each combination
  distill-run +sweep=NAME [key=value ...]                a sweep of a preset
  distill-run resume=outputs/runs/DATE/TIME              continue an interrupted run

Groups (the default comes first)
{groups}
  +sweep                      {sweeps}

Keys that are often set
{keys}

Other commands
  distill-report DIR...   one report of all runs in some folders
  distill-search          search for values between grid points, with Optuna
  distill-store           what is kept for reuse: ls, verify, gc
  python -m distill_run   the same as distill-run

Options
  -m, --multirun          a sweep over every key that has several values
  --cfg job --resolve     show the configuration of a command without running it
  --config-dir DIR        a folder of your own models, modes, datasets, augmentations, watchers
  --info, --hydra-help    how the configuration is composed; Hydra's own help
  --version               the version of distill-run
  -sc install=bash        how to install shell completion (bash, zsh, fish):
                          eval "$(distill-run -sc install=bash)"

Examples
  distill-run
  distill-run teacher=cnn_large student=cnn_tiny mode=soft mode.temperature=8
  distill-run mode=soft also=crd mode.also.crd.weight=0.8
  distill-run teacher=resnet56 student=resnet20 assistants=resnet32
  distill-run dataset=image_folder dataset.root=photos
  distill-run training/student/optimizer=adamw training.student.optimizer.lr=0.002
  distill-run training.teacher.lr_search=[0.003,0.01,0.03,0.1]
  distill-run experiment=founding_cifar10
  distill-run -m mode.temperature=1,2,4,8 mode.alpha=0.1,0.5,0.9 seed=0,1,2
  distill-run +sweep=temperature_alpha hydra/launcher=joblib hydra.launcher.n_jobs=2
"""

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
    "teacher_seed": "for the teacher; a list: several teachers",
    "baseline": "false: do not train the student alone",
    "teacher_checkpoint": "a teacher that is already trained, or a list",
    "teacher_normalisation": "of a state dict: dataset, published or values",
    "teacher_weights": "for several teachers, as in [2,1]",
    "store_dir": "where teachers, baselines and logits are kept",
    "logit_bank_gigabytes": "disk for a teacher's logits; 0: run it live",
    "dataset.root": "the folder of the images",
    "dataset.test_fraction": "of each class, if there is no test split",
    "dataset.train_fraction": "below 1: fewer training images",
    "dataset.augment.crop.padding": "pixels; other keys: flip.enabled, cutout.size",
    "mode.temperature": "softens both distributions; above 0",
    "mode.alpha": "weight of the distillation term, 0 to 1",
    "mode.divergence": "forward, reverse or jensen_shannon",
    "training.views": "views that epochs cycle through; null: always new",
    "training.view_seed": "for the student's views; by default the seed",
    "training.student.epochs": "also training.teacher.epochs, and so on",
    "training.student.batch_size": "images per step",
    "training.student.optimizer.lr": "learning rate",
    "training.student.schedule.warmup_epochs": "epochs of linear warm-up",
    "training.student.clip_norm": "largest gradient norm",
    "training.student.label_smoothing": "of the cross-entropy",
    "training.student.mixup": "0: off; also training.student.cutmix",
    "training.student.patience": "stop after this many epochs without a gain",
    "training.student.lr_search": "learning rates to try, as in [0.01,0.1]",
    "device.precision": "auto, fp32, bf16 or fp16",
    "device.compile": "torch.compile the networks that train",
}


def help_page() -> str:
    """The text of the help page; its groups and default values are read from the YAML files."""
    composed = compose()
    choices = composed.hydra.runtime.choices
    groups = [_group(group, choices[group]) for group in GROUPS]
    keys = []
    for key, meaning in KEYS.items():
        setting = f"{key}={show(OmegaConf.select(composed.config, key))}"
        keys.append(f"  {setting:<46}{meaning}")
    sweeps = "  ".join(option_names(config_dir() / "sweep"))
    return PAGE.format(groups="\n".join(groups), keys="\n".join(keys), sweeps=sweeps)


def _group(group: str, default: str | None) -> str:
    """The lines of a group: its options, or the name of the group that has the same options."""
    same = {"also": "mode", "more_teachers": "teacher", "assistants": "teacher"}
    if group == "watchers":
        words = "none, one or several of your own (see --config-dir)"
    elif group == "augment":
        words = f"none, one or several of: {'  '.join(option_names(config_dir() / LISTS[group][0]))}"
    elif group in same:
        words = f"none, one or several of those of {same[group]}, as in '{group}=[A,B]'"
    elif group == "student":
        words = f"{default}, and those of teacher"
    else:
        folder = next((folder for folder, groups in ROLES.items() if group in groups), group)
        words = "  ".join(sorted(option_names(config_dir() / folder), key=lambda name: name != default))
        if group == "experiment":
            words += "  cifar10/short  cifar10/STUDENT_from_TEACHER_MODE  cifar100/STUDENT_from_TEACHER_MODE"
    margin = " " * 30
    return textwrap.fill(words, 100, initial_indent=f"  {group:<28}", subsequent_indent=margin, break_on_hyphens=False)
