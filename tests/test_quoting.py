"""One text through three grammars: the shell's, Hydra's and YAML's; and paths as people type them."""

import shlex
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from distill_run.config.compose import literal_config, plain_config
from distill_run.config.overrides import parse
from distill_run.config.paths import at_home, home, readable
from distill_run.quoting import for_hydra, override, typed
from distill_run.record.command import resume_command
from helpers import examples, message_of

PIECES = [*"ab'\"\\${}[]()=,:~ .\t/-+*?|&;<>`!#%^@ü7e0", "${", "\\${", "null", "true", "nan", "1e3"]
TEXTS = st.one_of(
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=10).map("".join),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\0"), min_size=1),
).filter(lambda text: text != "???")


@examples
@given(TEXTS)
def test_what_is_printed_and_typed_again_is_the_same_text(text: str) -> None:
    (word,) = shlex.split(typed("store_dir", text))
    assert word == override("store_dir", text)
    (read,) = parse([word])
    (again,) = parse([f"store_dir={read.get_value_element_as_str()}"])  # as Hydra hands it to the point of a sweep
    config = OmegaConf.create({"store_dir": ""})
    OmegaConf.update(config, "store_dir", again.value())
    assert config.store_dir == text
    assert readable([word], multirun=True) == [word]


@examples
@given(TEXTS)
def test_what_is_saved_and_read_again_is_the_same_text(text: str) -> None:
    saved = yaml.safe_dump(plain_config(literal_config({"store_dir": text, "list": [{"a": text}]})))
    assert plain_config(literal_config(yaml.safe_load(saved))) == {"store_dir": text, "list": [{"a": text}]}


def test_a_text_is_quoted_where_hydra_would_read_something_else() -> None:
    for text, quoted in {
        "outputs/runs/2026-11-26/x_1.pt": "outputs/runs/2026-11-26/x_1.pt",
        "2024": '"2024"',
        "1e3": '"1e3"',
        "Null": '"Null"',
        "jürgen": '"jürgen"',
        "o'brien": '"o\'brien"',
        'say "x"': "'say \"x\"'",
        "a,b": '"a,b"',
        "a\\": '"a\\\\"',
        "${seed}": '"\\${seed}"',
    }.items():
        assert for_hydra(text) == quoted
    for text in ("a\nb", "a\rb", "???"):
        assert message_of(for_hydra, text) == (
            f"{text!r} cannot be written on a command line\n  give another name, without a line break"
        )


def test_the_command_that_goes_on_with_a_run_can_be_typed_anywhere(tmp_path: Path) -> None:
    for name in ("my runs/exp 1", "exp (a)", "exp,v2", "jürgen", "o'brien"):
        assert resume_command(tmp_path / name).startswith("distill-run resume=")
        words = shlex.split(resume_command(tmp_path / name))
        (read,) = parse(words[1:])
        assert (words[0], read.value()) == ("distill-run", str(tmp_path / name))


def test_values_that_hydra_cannot_read_are_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for word, read in {
        "dataset.root=jürgen": 'dataset.root="jürgen"',
        "dataset.root=fotos (2024)": 'dataset.root="fotos (2024)"',
        "dataset.root=a=b": 'dataset.root="a=b"',
        "dataset.root=o'brien": 'dataset.root="o\'brien"',
        "dataset.root=${oc.env:HOME}/ü": 'dataset.root="${oc.env:HOME}/ü"',
        "store_dir=2024": 'store_dir="2024"',
        "store_dir=1_000": 'store_dir="1_000"',
        "store_dir=~/store": 'store_dir="~/store"',
        "+dataset.root=True": '+dataset.root="True"',
        "dataset.root=[a]": 'dataset.root="[a]"',
        "hydra.run.dir=7": 'hydra.run.dir="7"',
        "mode.temperature=(4": 'mode.temperature="(4"',
        "teacher_checkpoint=[a.pt,b.pt]": "teacher_checkpoint=[a.pt,b.pt]",
        "dataset.root=null": "dataset.root=null",
        "dataset.root='2024'": "dataset.root='2024'",
        "mode.temperature=4": "mode.temperature=4",
        "dataset.root=a,b": "dataset.root=a,b",
        "a b=1": "a b=1",
    }.items():
        assert readable([word], multirun=False) == [read]
    (tmp_path / "a,b").mkdir()
    assert readable(["dataset.root=a,b"], multirun=False) == ['dataset.root="a,b"']
    assert readable(["dataset.root=ü,ö,b"], multirun=True) == ['dataset.root="ü","ö",b']
    assert message_of(readable, ["store_dir=a\nb"], False) == (
        "'store_dir=a\\nb' has a line break\n  give a name without one"
    )


def test_a_tilde_is_the_home_directory_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    dataset = {"root": "~", "copy": "${dataset.root}/x"}
    config = OmegaConf.create({"store_dir": "~/store", "teacher_checkpoint": ["~/a.pt", "b.pt"], "dataset": dataset})
    assert plain_config(at_home(config)) == {
        "store_dir": "/home/ada/store",
        "teacher_checkpoint": ["/home/ada/a.pt", "b.pt"],
        "dataset": {"root": "/home/ada", "copy": "/home/ada/x"},
    }
    assert home("store_dir", "./~/store") == "./~/store"
    assert message_of(home, "store_dir", "~nobody-at-all/x") == (
        "store_dir=~nobody-at-all/x is in the home directory of nobody\n"
        "  write the whole path, or store_dir='\"./~nobody-at-all/x\"'"
    )
