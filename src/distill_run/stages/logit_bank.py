"""The logit bank: the teacher's logits for (view, sample), computed once and read by every student of that teacher.

A view is a pure function of (seed, view, sample), and so are the frozen teacher's logits for it. The bank therefore
does not depend on the student, the mode, the order of the samples or the batch size: a sweep over those pays for the
teacher's forward passes once. Objectives that ask for features cannot use it.
"""

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from distill_run.config.schema import DeviceSettings
from distill_run.data.batches import Batch
from distill_run.data.sending import send
from distill_run.engine.device import storage_dtype
from distill_run.engine.finite import MEND_TEACHER
from distill_run.errors import user_error
from distill_run.files import write_text
from distill_run.fingerprints import fingerprint_of
from distill_run.listener import working
from distill_run.models.network import Network
from distill_run.models.outputs import Outputs
from distill_run.out_of_memory import told_of_no_memory
from distill_run.processes import Processes
from distill_run.stages.live_teacher import LiveTeacher
from distill_run.stages.top_logits import Rows, TopLogits, row_type
from distill_run.stages.trained import Trained
from distill_run.stages.training import Training
from distill_run.stages.workshop import Workshop
from distill_run.tensor_files import save_array
from distill_run.units import quantity

KIND = "logits"
CHUNK_SIZE = 256  # images at a time; fixed, so that no setting of a student changes what is stored
FREE_SHARE = 0.9  # of the disk's free space that a bank may take
VIEW_SHARE = 0.5  # of a GPU's free memory that a view may take
SAID_SHARE = 0.01  # of the limit; a smaller bank is not worth a word


class BankedTeacher:
    """A guide that reads the teacher's logits from the store, a file for each view, filled on first use.

    A file holds (N, K) logits in the order of the training samples, and is memory-mapped; or the `top_k` of the
    training, see TopLogits. If the teacher computes in float32, so are the stored logits: a loss differs from the live
    teacher's only by the rounding of another batch. If it computes in bf16 or fp16, they are stored as float16, which
    is exact for such numbers between 6e-5 and 65504. A process that is killed loses the view that it was filling, no
    other.
    `teacher_fingerprint` identifies the teacher; the views are the student's.

    A view lies on the device that trains. Where it would take more than half of a GPU's free memory (the other half is
    the student's), it stays in its file, and the rows of a batch are sent without waiting for the GPU.
    """

    def __init__(self, teacher: Network, teacher_fingerprint: str, training: Training, workshop: Workshop) -> None:
        self.teacher = teacher
        self.views = training.views
        self.num_classes, self.top_k = training.data.num_classes, training.top_k
        self.workshop = workshop
        self.device = workshop.device_for(teacher)
        inputs = bank_inputs(teacher_fingerprint, training, self.device.settings)
        self.fingerprint = fingerprint_of(inputs)
        self.view: int | None = None  # the one that the rows are of
        self.rows: Rows = np.empty(0)
        self.placed: Tensor | TopLogits | None = None  # the same on the device, if they fit

        def make(directory: Path) -> dict[str, Any]:
            write_text(directory / "config.yaml", yaml.safe_dump(inputs, sort_keys=False))
            return {"about": f"of teacher {teacher_fingerprint[:12]}, view seed {training.views.seed}"}

        workshop.store.obtain(KIND, self.fingerprint, make)

    def __call__(self, batch: Batch) -> Outputs:
        """The teacher's logits for the samples of a batch in its view, in float32."""
        if batch.view != self.view:
            self.placed = None  # its memory is free for the next
            self.view, self.rows = batch.view, self._load(batch.view)
            if self.rows.nbytes <= VIEW_SHARE * self.device.free_bytes():
                self.placed = self._place(self.rows, lambda values: values.to(self.device.torch_device))
        logits, indices = self.placed, batch.indices
        if logits is None:
            on_host = batch.indices.cpu() if batch.host_indices is None else batch.host_indices
            logits = self._place(self.rows[on_host.numpy()], partial(send, device=self.device.torch_device))
            indices = torch.arange(len(on_host), device=batch.indices.device)
        return Outputs(logits.spread(indices) if isinstance(logits, TopLogits) else logits[indices].float())

    def _place(self, rows: Rows, place: Callable[[Tensor], Tensor]) -> Tensor | TopLogits:
        if self.top_k is not None:
            return TopLogits.of_rows(rows, self.num_classes, place)
        return place(torch.from_numpy(rows))

    def _load(self, view: int) -> Rows:
        """The rows of a view, mapped into memory from the store, where the teacher is asked for them first."""

        def make(path: Path) -> None:
            with told_of_no_memory(
                f"the teacher, with {CHUNK_SIZE} images at a time,",
                "write logit_bank_gigabytes=0: it then runs live, with as many as training.student.batch_size says",
            ):
                rows = self._ask_teacher(view)
            if self.workshop.processes.is_first:
                save_array(path, rows)

        with self.workshop.stop.at_once():  # also while another process fills the view
            path = self.workshop.store.obtain_part(KIND, self.fingerprint, file_of(view), make)
        rows: Rows = np.load(path, mmap_mode="c")  # copy-on-write: torch has no read-only tensors
        return rows

    @cached_property
    def _live(self) -> LiveTeacher:
        return LiveTeacher(self.teacher, self.device)

    def _ask_teacher(self, view: int) -> Rows:
        """What is stored of the logits of all samples in a view; each process asks for its share of the chunks."""
        feed, processes, parts = self.workshop.feed, self.workshop.processes, []
        num_samples = feed.num_samples(self.views)
        share = processes.share(-(-num_samples // CHUNK_SIZE))
        with working(self.workshop.watcher, f"the teacher's logits of view {view}", num_samples) as advance:
            for batch in feed.view_in_order(self.views, view, CHUNK_SIZE, share):
                parts.append(self._rows(self._live(batch).logits))
                advance(CHUNK_SIZE * len(parts) * processes.size)
        return _gathered(np.concatenate(parts), processes.share_sizes(num_samples, CHUNK_SIZE), processes)

    def _rows(self, logits: Tensor) -> Rows:
        dtype = storage_dtype(self.device.settings)
        if not logits.isfinite().all():
            raise user_error("the teacher's logits are not finite for a training image", MEND_TEACHER)
        stored = logits.to(dtype)
        if not stored.isfinite().all():
            raise user_error("the teacher's logits do not fit into half precision", "write device.precision=fp32")
        if self.top_k is not None:
            return TopLogits.of(logits, self.top_k).rows(dtype)
        rows: Rows = stored.cpu().numpy()
        return rows


def _gathered(own: Rows, sizes: list[int], processes: Processes) -> Rows:
    """The rows of all processes."""
    as_bytes = torch.from_numpy(np.ascontiguousarray(own).view(np.uint8).reshape(len(own), -1))
    rows: Rows = processes.gather(as_bytes, sizes).numpy().view(own.dtype).reshape(-1, *own.shape[1:])
    return rows


def bank_inputs(teacher_fingerprint: str, training: Training, device: DeviceSettings) -> dict[str, Any]:
    """All that the teacher's logits for a student's views depend on; `device` is the teacher's."""
    views = dataclasses.asdict(training.views)
    del views["num_views"]  # how many there are does not change any of them
    alone = dataclasses.replace(device, num_processes=1)  # a teacher without training does not depend on it
    return {
        "program": training.program,
        "teacher": teacher_fingerprint,
        "data": dataclasses.asdict(training.data),
        "views": views,
        "top_k": training.top_k,
        "code": training.code,
        "device": {**alone.inputs, "compile": None},  # the teacher is not compiled
    }


def file_of(view: int) -> str:
    """The name of the file that holds a view's logits."""
    return f"view_{view}.npy"


def bank_bytes(training: Training, teacher: Trained, workshop: Workshop) -> tuple[int, int]:
    """How much disk a teacher's logits of all views of a training take, and those that are not in the store yet."""
    device = workshop.device_for(teacher.own_network).settings
    folder = workshop.store.path(KIND, fingerprint_of(bank_inputs(teacher.fingerprint, training, device)))
    views = training.views.views_of(training.recipe.epochs)
    num_missing = sum(not (folder / file_of(view)).is_file() for view in views)
    one_view = workshop.feed.num_samples(training.views) * row_bytes(training, storage_dtype(device))
    return len(views) * one_view, num_missing * one_view


def row_bytes(training: Training, dtype: torch.dtype) -> int:
    """How much disk the logits of a sample take."""
    if training.top_k is None:
        return training.data.num_classes * dtype.itemsize
    return row_type(training.data.num_classes, training.top_k, dtype).itemsize


def has_room(training: Training, teachers: Sequence[Trained], workshop: Workshop) -> bool:
    """Whether the limit has room for the banks, and the disk for what they lack; says where not, if one was wanted."""
    sizes = [bank_bytes(training, teacher, workshop) for teacher in teachers]
    whole, missing = (sum(each) for each in zip(*sizes, strict=True))
    limit = workshop.bank_gigabytes * 1e9
    workshop.store.root.mkdir(parents=True, exist_ok=True)  # nothing is in it yet where all teachers were given
    free = FREE_SHARE * shutil.disk_usage(workshop.store.root).free
    if whole <= limit and missing <= free:
        if missing >= SAID_SHARE * limit:
            workshop.watcher.noted(f"the teacher's logits of all views (the logit bank) take {quantity(missing)}B more")
        return True
    if limit > 0:
        allowed = f"{quantity(whole)}B, logit_bank_gigabytes allows {quantity(limit)}B"
        room = f"{quantity(missing)}B more, the disk has {quantity(free)}B free"
        workshop.watcher.noted(
            f"the teacher's logits of all views (the logit bank) need {allowed if limit < whole else room}: "
            "the teacher runs live in every step; training.views=8 makes the bank smaller"
        )
    return False
