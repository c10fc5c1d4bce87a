"""Names that say what a thing depends on: the sha256 of inputs, and of a file's bytes."""

import hashlib
import json
from pathlib import Path
from typing import Any

from distill_run.listener import NOBODY, Listener, working

FORMAT = 3  # raised when the content of an entry of the store for the same inputs changes
CHUNK_BYTES = 2**24  # of a file that is hashed


def canonical(value: Any) -> Any:
    """The same value in one fixed form: keys sorted, whole floats as integers, tuples as lists."""
    if isinstance(value, dict):
        return {str(key): canonical(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def fingerprint_of(inputs: dict[str, Any]) -> str:
    """The sha256 of inputs, in hexadecimal; inputs are plain containers, numbers, texts and None."""
    text = json.dumps({"format": FORMAT, "inputs": canonical(inputs)}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_hash(path: Path, listener: Listener = NOBODY) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file, working(listener, f"checking {path.name}", path.stat().st_size) as advance:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            advance(file.tell())
    return digest.hexdigest()
