"""Reading every photograph once, before anything is trained: what cannot be read is named while it costs nothing.

The same pass gives the hash of the pixels, their sizes and the statistics of the channels, and keeps the pixels where
they fit into memory. What it found stays in the store for the next run over the same files.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import __version__ as pillow_version

from distill_run.data.decode import Decoder
from distill_run.data.photo_list import PhotoList, reason_of
from distill_run.data.pixels import DARK, DEEP
from distill_run.errors import Mistake, refuse, user_error
from distill_run.fingerprints import fingerprint_of
from distill_run.listener import Listener, working
from distill_run.store import Store
from distill_run.store_records import read_meta
from distill_run.tensor_files import save_arrays
from distill_run.units import counted

KIND, FINDINGS, PIXELS = "images", "findings.npz", "pixels.bin"
BLOCK = 256  # photographs that are decoded at a time
LEVELS = 256  # values of a channel


class Reading(NamedTuple):
    """What became of one photograph: pixels (H, W, C), how often each value stands in each channel, and remarks.

    Or the `reason` why it cannot be read.
    """

    pixels: NDArray[np.uint8] | None
    counts: list[int]
    remarks: list[str]
    file_digest: bytes
    reason: str = ""


@dataclass(frozen=True)
class Survey:
    """What reading some photographs found.

    `sizes` (N, 2) are height and width in the form that was asked for, 0 for a file that cannot be read; `digests`
    (N, 32) are the sha256 of the pixels, `file_digests` (N, 32) those of the files. `counts` (C, 256) say how often
    each value stands in a channel. `remarks` say what people may not expect, with the indices of the photographs.
    `problems` are the reasons why files cannot be read, by their index. `pixels_path` is the file with the pixels
    (H, W, C) of all photographs, one after the other; None where they are not kept. `fingerprint` names the entry of
    the store.
    """

    sizes: NDArray[np.int64]
    digests: NDArray[np.uint8]
    file_digests: NDArray[np.uint8]
    counts: NDArray[np.int64]
    remarks: dict[str, list[int]]
    problems: dict[int, str]
    pixels_path: Path | None
    fingerprint: str

    @cached_property
    def readable(self) -> NDArray[np.int64]:
        """The indices (M,) of the photographs that can be read."""
        return np.flatnonzero(self.sizes[:, 0])

    @property
    def content(self) -> str:
        """The sha256 of the photographs in their form: it does not depend on where the pixels are kept."""
        return hashlib.sha256(self.sizes.tobytes() + self.digests.tobytes()).hexdigest()

    @property
    def identities(self) -> list[bytes]:
        """What is equal for equal files, for each photograph that can be read."""
        return [digest.tobytes() for digest in self.file_digests[self.readable]]


def survey(photos: PhotoList, decoder: Decoder, store: Store, *, keeps_pixels: bool, skips_damaged: bool) -> Survey:
    """Read all photographs, or take from the store what an earlier run found in the same files.

    Files are the same if their paths, sizes and times of change are, for one version of Pillow. Raises UserError that
    names files that cannot be read, or that would be black, unless they are to be skipped.
    """
    form = {"channels": decoder.channels, "form": type(decoder.form).__name__, **asdict(decoder.form)}  # type: ignore[call-overload]
    files = [photos.reader.signature(item) for item in photos.items.tolist()]
    fingerprint = fingerprint_of(
        {"files": files, "decoder": form, "pillow": pillow_version, "keeps_pixels": keeps_pixels}
    )

    def make(directory: Path) -> dict[str, Any]:
        path = directory / PIXELS if keeps_pixels else Path(os.devnull)
        with path.open("wb") as file:
            findings, remarks, problems = _read_all(photos, decoder, file, store.listener)
        if not skips_damaged:
            _refuse(problems, remarks, photos)
        save_arrays(directory / FINDINGS, **findings)
        shown = {str(index): reason for index, reason in problems.items()}
        about = f"{len(photos):,} images, {photos.name(0)} the first"
        return {"about": about, "remarks": remarks, "problems": shown}

    directory, _ = store.obtain(KIND, fingerprint, make)
    meta = read_meta(directory)
    problems = {int(index): reason for index, reason in meta["problems"].items()}
    if not skips_damaged:
        _refuse(problems, meta["remarks"], photos)
    with np.load(directory / FINDINGS) as findings:
        return Survey(
            sizes=findings["sizes"],
            digests=findings["digests"],
            file_digests=findings["file_digests"],
            counts=findings["counts"],
            remarks=meta["remarks"],
            problems=problems,
            pixels_path=directory / PIXELS if keeps_pixels else None,
            fingerprint=fingerprint,
        )


def _refuse(problems: Mapping[int, str], remarks: Mapping[str, list[int]], photos: PhotoList) -> None:
    """Raise UserError if there are problems, or if all images of 16 bits would become black."""
    remedy = "mend or remove the file, or write dataset.on_error=skip"
    mistakes = [Mistake(f"{photos.place(index)} cannot be read: {why}", remedy) for index, why in problems.items()]
    refuse(mistakes, "files that cannot be read", remedy)
    dark = remarks.get(DARK, [])
    if dark and len(dark) == len(remarks[DEEP]):
        raise user_error(
            f"{photos.place(dark[0])}: {counted(len(dark), 'image')} {DARK}",
            "multiply their numbers until white is 65,535, or save them with 8 bits",
        )


def _read_all(
    photos: PhotoList, decoder: Decoder, file: BinaryIO, listener: Listener
) -> tuple[dict[str, NDArray[Any]], dict[str, list[int]], dict[int, str]]:
    """What is found in the photographs, the remarks on them, and the reasons why some cannot be read.

    Their pixels are written to `file`.
    """
    sizes = np.zeros((len(photos), 2), dtype=np.int64)
    digests, file_digests = np.zeros((2, len(photos), 32), dtype=np.uint8)
    counts = np.zeros((decoder.channels, LEVELS), dtype=np.int64)
    remarks: dict[str, list[int]] = {}
    problems = {}
    with working(listener, f"reading {len(photos):,} images", len(photos)) as advance:
        for index, reading in enumerate(_decoded(photos, decoder)):
            advance(index + 1)
            if reading.pixels is None:
                problems[index] = reading.reason
                continue
            pixels = np.ascontiguousarray(reading.pixels)
            file.write(pixels.data)
            sizes[index] = pixels.shape[:2]
            digests[index] = np.frombuffer(hashlib.sha256(pixels.data).digest(), dtype=np.uint8)
            file_digests[index] = np.frombuffer(reading.file_digest, dtype=np.uint8)
            counts += np.array(reading.counts).reshape(counts.shape)
            for remark in reading.remarks:
                remarks.setdefault(remark, []).append(index)
    return {"sizes": sizes, "digests": digests, "file_digests": file_digests, "counts": counts}, remarks, problems


def _decoded(photos: PhotoList, decoder: Decoder) -> Iterator[Reading]:
    """All photographs in their order; Pillow decodes without the interpreter lock, so threads are enough."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for first in range(0, len(photos), BLOCK):  # not all at once: their pixels would lie in memory together
            yield from pool.map(partial(_decode, photos, decoder), range(first, min(first + BLOCK, len(photos))))


def _decode(photos: PhotoList, decoder: Decoder, index: int) -> Reading:
    try:
        data = photos.read(index)
        image, remarks = decoder.decode(data)
    except (OSError, ValueError) as error:
        return Reading(None, [], [], b"", reason_of(error))
    pixels = np.asarray(image).reshape(image.height, image.width, decoder.channels)
    return Reading(pixels, image.histogram(), remarks, hashlib.sha256(data).digest())
