"""JSON objects as dataclasses: `encode` gives what json.dumps writes, `decode` reads it back and checks every type."""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

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
    read: T = _decode(kind, content, key)
    return read


def _decode(kind: Any, value: Any, key: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if kind is Path:
        return Path(_scalar(str, value, key))
    if kind in SCALARS:
        return _scalar(kind, value, key)
    if dataclasses.is_dataclass(kind):
        return _decode_fields(kind, value, key)
    if origin is types.UnionType:  # X | None
        [inner] = [argument for argument in arguments if argument is not types.NoneType]
        return None if value is None else _decode(inner, value, key)
    if origin is tuple:  # tuple[X, ...]
        _check(isinstance(value, list), value, "a list", key)
        return tuple(_decode(arguments[0], item, f"{key}[{index}]") for index, item in enumerate(value))
    assert origin is dict, kind
    _check(isinstance(value, dict), value, "an object", key)
    return {name: _decode(arguments[1], item, _join(key, name)) for name, item in value.items()}


def _decode_fields(kind: Any, content: Any, key: str) -> Any:
    _check(isinstance(content, dict), content, "an object", key)
    types_of_fields = _types_of_fields(kind)
    values = {}
    for field in dataclasses.fields(kind):
        where = _join(key, field.name)
        if field.name in content:
            values[field.name] = _decode(types_of_fields[field.name], content[field.name], where)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{where} is absent")
    return kind(**values)


@cache
def _types_of_fields(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


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
