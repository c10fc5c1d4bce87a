"""The README and the pages beside it: their commands are accepted and their links lead somewhere."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from distill_run.commands.preflight import preflight
from distill_run.commands.spaces import read_space
from distill_run.config.overrides import parse
from distill_run.config.presets import expand_presets
from pages import CHECKOUT, PAGES, command_names, commands
from test_pages_run import OTHERS

# What stands for something of the reader's, or needs what not every machine has.
PLACEHOLDERS = ("DATE", "FINGERPRINT", "my_weights.pt", "--config-dir", "device=cuda")
COMMANDS = [line for line in commands("distill-run") if not any(word in line for word in PLACEHOLDERS)]
NOT_RUN = [line for line in COMMANDS if any(word in line for word in OTHERS)]  # test_pages_run.py runs the rest

pytestmark = pytest.mark.skipif(not PAGES, reason="the tests do not lie in a checkout")


def test_the_pages_have_commands() -> None:
    assert len(COMMANDS) > 50


@pytest.mark.slow
@pytest.mark.parametrize("arguments", NOT_RUN)
def test_a_command_of_a_page_is_accepted(arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(arguments)
    if "--help" in words:
        return  # test_cli.py shows it
    overrides = [word for word in words if word != "-m"]
    _, has_preset = expand_presets(overrides, None)
    # The values of every preset are checked in test_sweep.py.
    own = [override for override in overrides if not override.startswith("+sweep=")]
    preflight(own, None, multirun="-m" in words or has_preset)
    assert list(tmp_path.iterdir()) == []


def test_a_search_of_a_page_is_accepted() -> None:
    (arguments,) = commands("distill-search")
    spaces = [read_space(override) for override in parse(shlex.split(arguments)[:2])]
    assert [space.ends for space in spaces] == [("1", "20"), ("0", "1")]


def test_the_commands_of_the_pages_are_installed() -> None:
    assert command_names() >= {"distill-run", "distill-report", "distill-store", "distill-search"}
    assert all(Path(sys.executable).with_name(name).is_file() for name in command_names())


@pytest.mark.parametrize("page", PAGES)
def test_every_link_and_picture_of_a_page_leads_to_a_file(page: str) -> None:
    links = [link for link in re.findall(r"\]\(([^)]*)\)", PAGES[page]) if not link.startswith("http")]
    assert [link for link in links if not (CHECKOUT / page).parent.joinpath(link).is_file()] == []


def test_every_page_is_linked_from_the_readme() -> None:
    assert [page for page in PAGES if page != "README.md" and f"({page})" not in PAGES["README.md"]] == []


def test_the_readme_is_short_and_its_first_screen_has_the_two_commands_and_the_tasks() -> None:
    lines = PAGES["README.md"].splitlines()
    assert len(lines) <= 150
    installs = [line for line in lines if line.startswith("    python3 -m venv ")]
    assert [line.split("/")[-1] for line in installs] == ["distill-run", "pytest"]
    assert sum(line.startswith("- [") for line in lines[:40]) == 10
