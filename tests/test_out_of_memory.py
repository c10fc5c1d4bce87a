"""Lack of memory in each stage of a run, injected: two lines, with the keys to change and values that apply."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import TINY, InProcess
from distill_run.commands import installed
from distill_run.config.settings import compose_config
from distill_run.engine.evaluate import predict
from distill_run.errors import UserError
from distill_run.out_of_memory import is_out_of_memory, told_of_no_memory
from distill_run.own_code import naming_own_code
from distill_run.pipeline import run
from distill_run.report.run_report import RunReport
from distill_run.stages.live_teacher import LiveTeacher
from helpers import TinyClassifier, message_of, some_split
from workshops import open_run

ON_THE_CPU = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "4831838208 bytes. Error code 12 (Cannot allocate memory)"
)
ON_CUDA = "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 7.79 GiB of which 1.2 is free."
SMALLER = "make the images smaller, as in dataset.image_size=4, or choose a smaller network"


def np_error() -> Exception:
    """What NumPy raises; its class is private."""
    try:
        np.empty(2**62, np.uint8)
    except MemoryError as error:
        return error
    raise AssertionError("this machine has 4 EB")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        np_error(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        torch.OutOfMemoryError(ON_CUDA),
        RuntimeError(ON_THE_CPU),
        RuntimeError("[enforce fail at alloc_cpu.cpp] data. DefaultCPUAllocator: not enough memory: you tried to ..."),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.06 GB, other allocations: 2 KB, max allowed: 9 GB)."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("std::bad_alloc"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    ],
    ids=repr,
)
def test_lack_of_memory_is_known_in_all_its_forms(error: Exception) -> None:
    assert is_out_of_memory(error)


def test_other_errors_are_no_lack_of_memory() -> None:
    no_code = ImportError("a.so: failed to map segment from shared object: Operation not permitted")
    others = (RuntimeError("mat1 and mat2 shapes"), OSError(errno.ENOSPC, "No space"), ValueError("out of memory"))
    for error in (*others, no_code):
        assert not is_out_of_memory(error)
        with pytest.raises(type(error)), told_of_no_memory("this", "that"):
            raise error


@pytest.mark.parametrize(
    ("error", "size"),
    [
        (RuntimeError(ON_THE_CPU), ": 4.83GB more could not be had"),
        (torch.OutOfMemoryError(ON_CUDA), ": 2.50 GiB more could not be had"),
        (MemoryError(), ""),
    ],
    ids=["cpu", "cuda", "python"],
)
def test_the_size_that_was_asked_for_is_told(error: Exception, size: str) -> None:
    def fail() -> None:
        with told_of_no_memory("this", "do that"):
            raise error

    assert message_of(fail) == f"this does not fit into memory{size}\n  do that"


COMMANDS = [
    (["distill-run", "seed=1"], "commands.distill.read_command"),
    (["distill-predict", "RUN", "."], "deploy.predicting.write_rows"),
    (["distill-export", "RUN", "--format", "state_dict"], "deploy.export.export"),
    (["distill-measure", "RUN"], "deploy.measured.measure_candidates"),
    (["distill-report", "RUN"], "commands.report.write_sweep_report"),
    (["distill-search", "seed=range(2)"], "commands.search.preflight"),
    (["distill-store", "ls", "--store-dir", "STORE"], "commands.store.list_entries"),
]


@pytest.mark.parametrize(("words", "called"), COMMANDS, ids=[words[0] for words, _ in COMMANDS])
def test_each_command_tells_it(
    words: list[str], called: str, tiny_report: RunReport, in_process: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {"RUN": str(tiny_report.run_dir), "STORE": str(tiny_report.run_dir.parent / "store")}
    words = [places.get(word, word) for word in words]
    command = getattr(installed, words[0].removeprefix("distill-"))
    errors = [MemoryError(), RuntimeError(ON_THE_CPU), torch.OutOfMemoryError(ON_CUDA)]

    def fail(*_: object, **__: object) -> None:
        raise errors.pop(0)

    monkeypatch.setattr(f"distill_run.{called}", fail)
    for size in ("", ": 4.83GB more could not be had", ": 2.50 GiB more could not be had"):
        status, _, told = in_process(command, *words)
        assert status == 1
        assert told == (
            f"error: the work of this command does not fit into memory{size}\n"
            "  end other programs, or use a computer with more memory; "
            "where a GPU has too little, CUDA_VISIBLE_DEVICES= before the command makes it use the CPU\n"
        )
    errors.append(MemoryError())
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(UserError) as caught:
        command()
    assert isinstance(caught.value.__cause__, MemoryError)


def test_own_code_is_not_to_blame(tmp_path: Path) -> None:
    code = compile("raise RuntimeError('out of memory')", str(tmp_path / "own.py"), "exec")
    with pytest.raises(RuntimeError, match="out of memory"), naming_own_code(tmp_path):
        exec(code)


def fails(*_: Any, **__: Any) -> Any:
    raise RuntimeError(ON_THE_CPU)


def fails_in_training(training: bool) -> Callable[..., None]:
    """A hook of a network that finds no memory in one of its two modes."""

    def hook(module: torch.nn.Module, _inputs: object, _output: object) -> None:
        if module.training is training:
            raise RuntimeError(ON_THE_CPU)

    return hook


def test_an_evaluation_names_the_size_of_its_images() -> None:
    network = TinyClassifier(in_channels=1, image_size=(8, 8), num_classes=3)
    network.register_forward_hook(fails_in_training(False))
    assert message_of(predict, network, some_split(20, 3, (1, 8, 8))) == (
        f"an evaluation, with 20 images at a time, does not fit into memory: 4.83GB more could not be had\n  {SMALLER}"
    )


@pytest.mark.parametrize(
    ("stage", "role", "batch_size", "half"), [("teacher", "teacher", 64, 32), ("baseline", "student", 100_000, 573)]
)
def test_a_training_names_its_batch_size_and_a_smaller_one(
    stage: str, role: str, batch_size: int, half: int, tmp_path: Path
) -> None:
    """Of the digits there are 1,146 to train with, whatever the batch size."""
    key = f"training.{role}"
    opened = open_run(tmp_path, [*TINY, f"{key}.batch_size={batch_size}", f"{key}.accumulation=2"])
    prepared = opened.lineup.teachers[0] if stage == "teacher" else opened.lineup.pairs[0].baseline
    assert prepared is not None
    prepared.assembly.network.register_forward_hook(fails_in_training(True))
    assert message_of(opened.workshop.train, prepared) == (
        f"the training of the {stage}, with {2 * half} images at a time, does not fit into memory: "
        "4.83GB more could not be had\n"
        f"  lower {key}.batch_size, as in {key}.batch_size={half} {key}.accumulation=4, which leaves the optimizer's "
        "steps as large as they are; or choose smaller networks, or a smaller dataset.image_size"
    )


def test_the_teacher_of_a_bank_can_run_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_run(tmp_path, [*TINY, "training.teacher.epochs=1"])
    trainer, guide = opened.student()
    assert guide is not None
    monkeypatch.setattr(LiveTeacher, "__call__", fails)
    assert message_of(guide, next(iter(trainer.batches.epoch(1)))) == (
        "the teacher, with 256 images at a time, does not fit into memory: 4.83GB more could not be had\n"
        "  write logit_bank_gigabytes=0: it then runs live, with as many as training.student.batch_size says"
    )


def test_a_run_that_cannot_even_try_its_networks_says_what_is_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = torch.nn.Conv2d.forward

    def forward(self: torch.nn.Conv2d, images: Tensor) -> Tensor:
        return fails() if self.out_channels == 8 else original(self, images)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", forward)
    settings = compose_config([*TINY, f"store_dir={tmp_path / 'store'}"])
    assert message_of(run, settings, tmp_path / "run") == (
        "this run does not fit into memory: 4.83GB more could not be had\n"
        "  choose smaller networks or a smaller dataset.image_size; or keep fewer images: dataset.memory_gigabytes=1"
    )
