"""The records of the store, which say whether its files are those that were written: meta.json, and a run's entries."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from distill_run.files import flush, write_json
from distill_run.fingerprints import file_hash, fingerprint_of
from distill_run.listener import NOBODY, Listener

META = "meta.json"
SEAL = "sha256"  # of the rest of a record of a run's entries
# What reading a JSON file raises whose content is another.
NOT_A_RECORD = (ValueError, LookupError, TypeError, AttributeError, RecursionError)


def read_uses(path: Path) -> dict[str, Any]:
    """The record of a run's entries: `run` and `entries`; raises OSError or one of NOT_A_RECORD where it is damaged."""
    uses: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    seal = uses.pop(SEAL, None)
    if uses.keys() != {"run", "entries"} or seal not in (None, fingerprint_of(uses)):  # the first records have no seal
        raise ValueError(f"{path.name} has changed since it was written")
    return uses


def write_uses(path: Path, uses: dict[str, Any]) -> None:
    """Write the record of a run's entries, `run` and `entries`, with the hash of both."""
    write_json(path, {**uses, SEAL: fingerprint_of(uses)})


def read_meta(directory: Path) -> dict[str, Any]:
    """The content of an entry's meta.json."""
    meta: dict[str, Any] = json.loads((directory / META).read_text(encoding="utf-8"))
    return meta


def damage(directory: Path, listener: Listener = NOBODY) -> str | None:
    """The name of a file in an entry whose bytes have changed, or None; parts that were added later are not checked.

    Raises PermissionError for a file that may not be read: that is no damage.
    """
    try:
        meta = read_meta(directory)
        files = dict(meta["files"])
        own = files.pop(META, None)
        if own not in (None, _hash_of_meta(meta)):  # the first entries do not have it
            return META
        return next((name for name, digest in files.items() if file_hash(directory / name, listener) != digest), None)
    except PermissionError:
        raise
    except (OSError, *NOT_A_RECORD) as error:
        return Path(error.filename).name if isinstance(error, OSError) and error.filename else META


def damaged_parts(directory: Path) -> list[str]:
    """The names of the files that were added to an entry and whose bytes have changed since."""
    return [name for name in read_meta(directory)["parts"] if not is_sound_part(directory / name)]


def is_sound_part(path: Path, listener: Listener = NOBODY) -> bool:
    """Whether a file that was added to an entry is there, with the bytes that were written."""
    return path.is_file() and read_meta(path.parent)["parts"].get(path.name) == file_hash(path, listener)


def write_new_meta(directory: Path, facts: dict[str, Any], listener: Listener) -> None:
    """Write the meta.json of a new entry, whose other files are complete."""
    digests = {}
    for file in sorted(directory.iterdir()):
        flush(file)
        digests[file.name] = file_hash(file, listener)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    write_meta(directory, {**facts, "created": created, "files": digests, "parts": {}})


def write_meta(directory: Path, meta: dict[str, Any]) -> None:
    """Write meta.json with the hash of its own content beside those of the files."""
    write_json(directory / META, {**meta, "files": {**meta["files"], META: _hash_of_meta(meta)}})


def _hash_of_meta(meta: dict[str, Any]) -> str:
    files = {name: digest for name, digest in meta["files"].items() if name != META}
    return fingerprint_of({**meta, "files": files})
