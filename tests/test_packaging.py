"""What an installation holds: every YAML file and template, found from any folder."""

import tomllib
from pathlib import Path

import pytest

from distill_run.config.compose import config_dir

CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.fixture
def project() -> dict[str, object]:
    if not (CHECKOUT / "pyproject.toml").is_file():
        pytest.skip("the tests do not lie in a checkout")
    return tomllib.loads((CHECKOUT / "pyproject.toml").read_text())


def test_every_folder_of_conf_and_of_the_source_is_a_listed_package(
    project: dict[str, dict[str, dict[str, object]]],
) -> None:
    conf = {CHECKOUT / "conf", *(path for path in (CHECKOUT / "conf").rglob("*") if path.is_dir())}
    source = {path.parent for path in (CHECKOUT / "src").rglob("__init__.py")}
    names = {"distill_run." + ".".join(path.relative_to(CHECKOUT).parts) for path in conf}
    names |= {".".join(path.relative_to(CHECKOUT / "src").parts) for path in source}
    assert project["tool"]["setuptools"]["packages"] == sorted(names)


def test_the_configuration_lies_beside_the_code() -> None:
    assert (config_dir() / "config.yaml").is_file()
