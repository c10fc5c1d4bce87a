"""Where a run took place: versions, machine, source code and command."""

import os
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from distill_run.engine.device import Device

PACKAGES = (
    "distill-run",
    "torch",
    "torchvision",
    "hydra-core",
    "omegaconf",
    "numpy",
    "pillow",
    "scipy",
    "scikit-learn",
)
OPTIONAL_PACKAGES = ("timm", "datasets")


def describe_environment(device: Device, command: str) -> dict[str, Any]:
    """A flat record of all that may change a number; values are texts, numbers, booleans or null."""
    commit, is_dirty = _git_state()
    return {
        "command": command,
        "directory": str(Path.cwd()),
        "device": device.settings.kind,
        "device_name": _device_name(device.settings.kind),
        "precision": device.settings.precision,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),  # which instructions torch uses
        "processes": device.settings.num_processes,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        **_versions(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "git_commit": commit,
        "git_dirty": is_dirty,
    }


@cache
def _versions() -> dict[str, str | None]:
    return {
        **{package: metadata.version(package) for package in PACKAGES},
        **{package: _version(package) for package in OPTIONAL_PACKAGES},
    }


def _device_name(kind: str) -> str:
    if kind == "cuda":
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@cache
def _git_state() -> tuple[str | None, bool | None]:
    """Commit and dirty flag of the checkout that this code runs from; None for an installed package."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None, None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit, bool(_git(root, "status", "--porcelain"))
    except (OSError, subprocess.CalledProcessError):
        return None, None


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
