"""JSON objects as dataclasses: `encode` gives what json.dumps writes, `decode` reads it back and checks every type."""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
Reader = Callable[[Any, str], Any]  # of a value and the place where it stands

SCALARS = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a text"}


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; raises ValueError that names the file and says what is wrong with it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path.name} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is damaged ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} is damaged (it holds no object)")
    return content


def encode(value: Any) -> Any:
    """A value as plain containers: a dataclass becomes an object, a tuple a list, a path a text."""
    if dataclasses.is_dataclass(value):
        return {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def decode(kind: type[T], content: object, key: str = "") -> T:
    """A dataclass from a JSON object; raises ValueError that names the first key whose value is wrong or absent.

    A field that has a default may be absent. Other keys than those of the fields are ignored: a later version may have
    added them. `key` is the place of the content in its file.
    """
    read: T = _reader(typing.cast(Any, kind))(content, key)
    return read


@cache
def _reader(kind: Any) -> Reader:
    """What reads a value of this type at a place of the file; kept, because looking at types takes long."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return lambda value, _: value
    if kind is Path:
        return lambda value, key: Path(_scalar(str, value, key))
    if kind in SCALARS:
        return partial(_scalar, kind)
    if dataclasses.is_dataclass(kind):
        return partial(_fields, kind)
    if origin is types.UnionType:  # X | None
        [inner] = [argument for argument in arguments if argument is not types.NoneType]
        return partial(_optional, _reader(inner))
    if origin is tuple:  # tuple[X, ...]
        return partial(_items, _reader(arguments[0]))
    assert origin is dict, kind
    return partial(_mapping, _reader(arguments[1]))


def _optional(inner: Reader, value: Any, key: str) -> Any:
    return None if value is None else inner(value, key)


def _items(inner: Reader, value: Any, key: str) -> tuple[Any, ...]:
    _check(isinstance(value, list), value, "a list", key)
    return tuple(inner(item, f"{key}[{index}]") for index, item in enumerate(value))


def _mapping(inner: Reader, value: Any, key: str) -> dict[str, Any]:
    _check(isinstance(value, dict), value, "an object", key)
    return {name: inner(item, _join(key, name)) for name, item in value.items()}


def _fields(kind: Any, content: Any, key: str) -> Any:
    _check(isinstance(content, dict), content, "an object", key)
    values = {}
    for name, is_required, reader in _readers_of_fields(kind):
        if name in content:
            values[name] = reader(content[name], _join(key, name))
        elif is_required:
            raise ValueError(f"{_join(key, name)} is absent")
    return kind(**values)


@cache
def _readers_of_fields(kind: Any) -> list[tuple[str, bool, Reader]]:
    """For each field, its name, whether it must be there, and what reads its value."""
    found, types_of_fields = [], typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        is_required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        found.append((field.name, is_required, _reader(types_of_fields[field.name])))
    return found


def _scalar(kind: type, value: Any, key: str) -> Any:
    kinds = (int, float) if kind is float else (kind,)
    is_right = isinstance(value, kinds) and isinstance(value, bool) == (kind is bool)
    _check(is_right and (kind is not float or _is_finite(value)), value, SCALARS[kind], key)
    return value


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that is too large for a float
        return False


def _check(is_right: bool, value: object, wanted: str, key: str) -> None:
    if not is_right:
        shown = json.dumps(value)
        raise ValueError(f"{key or 'the content'} is {shown if len(shown) < 40 else shown[:40] + '...'}, not {wanted}")


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
