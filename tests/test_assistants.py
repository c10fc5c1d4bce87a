"""Teacher assistants: a chain of stages, each taught by the one before it."""

import json
from pathlib import Path

import pytest
from torch import Tensor

from conftest import TINY
from distill_run.config.settings import compose_config
from distill_run.engine.loop import Trainer
from distill_run.errors import Interrupted
from distill_run.pipeline import run
from distill_run.report.run_report import RunReport

CHAIN = ("assistants=[mlp,cnn_small]", "assistants.mlp.hidden=[16]")


def chain_run(folder: Path, *overrides: str, name: str = "run") -> RunReport:
    small = [*TINY, "training.teacher.epochs=1", "training.student.epochs=1", f"store_dir={folder / 'store'}"]
    return run(compose_config([*small, *overrides]), folder / name)


@pytest.mark.pages
def test_each_assistant_is_taught_by_the_one_before_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = chain_run(tmp_path, *CHAIN)
    rows = [json.loads(line) for line in (report.run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [row["stage"] for row in rows] == ["teacher", "assistant", "assistant 2", "baseline", "student"]
    assert [each["architecture"] for each in report.summary["assistants"]] == ["mlp", "cnn_small"]
    text = capsys.readouterr().out
    for row in ("teacher cnn_tiny", "assistant mlp", "assistant cnn_small", "baseline mlp", "student mlp"):
        assert row in text
    assert (report.run_dir / "report.md").read_text().count("assistant") >= 2
    # The bank of each student holds the logits of its own teacher: three teachers, three banks.
    assert len(list((tmp_path / "store" / "logits").iterdir())) == 3


def test_assistants_are_reused_by_other_students_and_made_anew_for_another_temperature(tmp_path: Path) -> None:
    first = chain_run(tmp_path, *CHAIN)
    second = chain_run(tmp_path, *CHAIN, "seed=1", name="second")
    third = chain_run(tmp_path, *CHAIN, "mode.temperature=2", name="third")
    prints = [[each["fingerprint"] for each in report.summary["assistants"]] for report in (first, second, third)]
    assert prints[0] == prints[1]
    assert not set(prints[0]) & set(prints[2])
    assert all(each["reused"] for each in second.summary["assistants"])
    assert len(list((tmp_path / "store" / "assistant").iterdir())) == 4


def test_the_first_link_is_what_a_student_of_the_teacher_would_be(tmp_path: Path) -> None:
    """An assistant is a student that teaches: the same architecture, seed and mode give the same figures."""
    chain = chain_run(tmp_path, "assistants=mlp", "assistants.mlp.hidden=[8]")
    plain = chain_run(tmp_path, name="plain")
    assert chain.summary["assistants"][0]["last"]["val"] == plain.summary["student"]["last"]["val"]
    assert chain.summary["student"]["last"]["val"] != plain.summary["student"]["last"]["val"]


def test_a_chain_that_is_cut_short_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = chain_run(tmp_path / "whole", *CHAIN)
    finish = Trainer._finish_epoch

    def cut(self: Trainer, val_logits: Tensor) -> dict[str, object]:
        row = finish(self, val_logits)
        if self.learner.stage == "assistant 2":
            raise Interrupted
        return row

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_finish_epoch", cut)
        with pytest.raises(Interrupted):
            chain_run(tmp_path, *CHAIN)
    run_dir = tmp_path / "run"
    epochs = ("training.teacher.epochs=1", "training.student.epochs=1")
    settings = compose_config([*TINY, *CHAIN, *epochs, f"store_dir={tmp_path / 'store'}", f"resume={run_dir}"])
    resumed = run(settings, run_dir)
    assert resumed.summary["student"]["last"]["val"] == whole.summary["student"]["last"]["val"]
    rows = [json.loads(line)["stage"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert rows == ["teacher", "assistant", "assistant 2", "baseline", "student"]
