"""The one place where the YAML of a component becomes an object.

A component is a mapping with a `_target_` and the arguments of its constructor. Targets must be in trusted packages,
because a configuration or a checkpoint may come from somebody else.
"""

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from distill_run.errors import RejectedValueError, UserError, unknown_key, user_error
from distill_run.own_code import naming_own_code, place_in
from distill_run.quoting import bracketed

T = TypeVar("T")
# What constructors raise for values that they cannot use.
REFUSALS = (ValueError, TypeError, ArithmeticError, AttributeError, LookupError, RuntimeError)
OWN_PACKAGES = ("distill_run", "torch.optim", "torchvision", "timm")


class Builder:
    """Builds components whose targets are in trusted packages or in the user's own folder of code."""

    def __init__(self, trusted_packages: Sequence[str] = OWN_PACKAGES, code_dir: Path | None = None) -> None:
        self.trusted_packages = tuple(trusted_packages)
        self.code_dir = code_dir

    def build(self, node: Mapping[str, Any], key: str, **injected: Any) -> Any:
        """The object that `node` describes; the program adds the `injected` arguments.

        `key` is the node's key in the configuration, for messages. An argument that is a component itself is built
        first, with the same `injected` arguments. Raises UserError if the target is not trusted or does not exist, if
        the arguments do not fit, or if the constructor refuses a value.
        """
        target = self.bind(node, key, **injected)
        arguments = {
            name: self.build(value, f"{key}.{name}", **injected) if _is_component(value) else value
            for name, value in _arguments(node).items()
        }
        with naming_own_code(self.code_dir):
            try:
                return target(**arguments, **injected)
            except RejectedValueError as error:
                raise error.under(key) from error
            except UserError:
                raise
            except REFUSALS as error:
                place = place_in(error, self.code_dir)
                if place and not isinstance(error, ValueError):  # a slip in the code, not a refused value
                    raise
                raised = f"; it was raised in {place}" if place else ""
                raise user_error(f"{key}: {error}", f"see the arguments of {node['_target_']}{raised}") from error

    def build_kind(self, kind: type[T], remedy: str, node: Mapping[str, Any], key: str, /, **injected: Any) -> T:
        """The same; raises UserError with the `remedy` for an object that is not of the class `kind`."""
        built = self.build(node, key, **injected)
        if not isinstance(built, kind):
            raise user_error(f"{key}._target_={node['_target_']} gives no {kind.__name__}", remedy)
        return built

    def bind(self, node: Mapping[str, Any], key: str, **injected: Any) -> Callable[..., Any]:
        """The target of `node`, after a check that the arguments fit its signature."""
        target = self._locate(node["_target_"], key)
        arguments = _arguments(node)
        parameters = inspect.signature(target).parameters
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        own = [name for name in parameters if name not in injected]
        if not takes_any and (surplus := [name for name in arguments if name not in own]):
            raise UserError(unknown_key(f"{key}.{name}", (f"{key}.{p}" for p in own)) for name in surplus)
        collecting = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        required = {n for n, p in parameters.items() if p.default is p.empty and p.kind not in collecting}
        if missing := sorted(required - arguments.keys() - injected.keys()):
            raise user_error(f"{key} lacks {', '.join(missing)}", f"add {key}.{missing[0]}=VALUE")
        return target

    def code_hash(self, *nodes: Mapping[str, Any]) -> str | None:
        """The sha256 of all Python files in the user's folder; None if no node has a target in that folder."""
        targets = [target for node in nodes for target in _targets(node)]
        if not any(self._is_own_code(target.rpartition(".")[0]) for target in targets):
            return None
        assert self.code_dir is not None
        return folder_hash(self.code_dir)

    def _locate(self, path: str, key: str) -> Callable[..., Any]:
        module_name, _, name = path.rpartition(".")
        if not self._is_trusted(module_name):
            raise user_error(
                f"{key}._target_={path} is outside the trusted packages ({', '.join(self.trusted_packages)})",
                f"if you trust it, add 'trusted_packages={bracketed((*self.trusted_packages, path.split('.')[0]))}'",
            )
        try:
            with _importable(self.code_dir), naming_own_code(self.code_dir, but=ImportError):
                target = getattr(importlib.import_module(module_name), name)
        except (ImportError, AttributeError) as error:
            raise user_error(f"{key}._target_={path} was not found: {error}", "check its spelling") from error
        if not callable(target):
            raise user_error(f"{key}._target_={path} is not a class or a function", "check its spelling")
        home = getattr(target, "__module__", None) or ""
        if self._is_packaged(module_name) and not self._is_packaged(home):
            raise user_error(
                f"{key}._target_={path} is from {home or 'nowhere'}, which {module_name} only imports",
                "name what that package defines itself",
            )
        return target  # type: ignore[no-any-return]

    def _is_trusted(self, module_name: str) -> bool:
        return _is_within(module_name, self.trusted_packages) or self._is_own_code(module_name)

    def _is_packaged(self, module_name: str) -> bool:
        """Whether a module is in one of the packages that are trusted without the user's word, and not the user's."""
        return _is_within(module_name, OWN_PACKAGES) and not self._is_own_code(module_name)

    def _is_own_code(self, module_name: str) -> bool:
        if self.code_dir is None or not module_name:
            return False
        folder = self.code_dir / module_name.split(".")[0]
        return folder.is_dir() or folder.with_suffix(".py").is_file()


def _is_within(module_name: str, packages: Sequence[str]) -> bool:
    return any(f"{module_name}.".startswith(f"{package}.") for package in packages)


def folder_hash(folder: Path) -> str:
    """The sha256 of the names and contents of all Python files in a folder and its subfolders."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _targets(node: Mapping[str, Any]) -> Iterator[str]:
    """The targets of a component and of those that stand in its arguments."""
    yield node["_target_"]
    for value in node.values():
        if _is_component(value):
            yield from _targets(value)


def _is_component(value: object) -> bool:
    return isinstance(value, Mapping) and "_target_" in value


def _arguments(node: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in node.items() if name != "_target_"}


@contextmanager
def _importable(folder: Path | None) -> Iterator[None]:
    """Within the block, modules of `folder` can be imported by name, and come before all others."""
    if folder is None:
        yield
        return
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
