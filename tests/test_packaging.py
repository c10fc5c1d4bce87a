"""What an installation holds: every YAML file, the licence, and a version whose changes are told."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from distill_run.config.compose import config_dir
from pages import PAGES

CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.fixture
def project() -> dict[str, Any]:
    if not (CHECKOUT / "pyproject.toml").is_file():
        pytest.skip("the tests do not lie in a checkout")
    return tomllib.loads((CHECKOUT / "pyproject.toml").read_text())


def test_every_folder_of_conf_and_of_the_source_is_a_listed_package(project: dict[str, Any]) -> None:
    conf = {CHECKOUT / "conf", *(path for path in (CHECKOUT / "conf").rglob("*") if path.is_dir())}
    source = {path.parent for name in ("__init__.py", "*.html") for path in (CHECKOUT / "src").rglob(name)}
    names = {"distill_run." + ".".join(path.relative_to(CHECKOUT).parts) for path in conf}
    names |= {".".join(path.relative_to(CHECKOUT / "src").parts) for path in source}
    assert project["tool"]["setuptools"]["packages"] == sorted(names)


def test_the_configuration_lies_beside_the_code() -> None:
    assert (config_dir() / "config.yaml").is_file()


def test_the_licence_is_shipped(project: dict[str, Any]) -> None:
    (name,) = project["project"]["license-files"]
    licence = (CHECKOUT / name).read_text(encoding="utf-8")
    assert licence.startswith(f"{project['project']['license']} License")
    assert f"(c) 2026 {project['project']['authors'][0]['name']}\n" in licence


def test_a_page_tells_the_changes_of_this_version(project: dict[str, Any]) -> None:
    changes = PAGES[".readme/changes.md"]
    assert re.findall(r"^## (.*)$", changes, flags=re.MULTILINE)[0] == project["project"]["version"]
