"""Several teachers: the weighted mean of their probabilities, at every temperature, live and from the bank."""

from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import TINY
from distill_run.config.settings import compose_config
from distill_run.data.batches import Batch
from distill_run.losses.logits import averaged_logits
from distill_run.models.ensemble import Ensemble
from distill_run.models.network import Network
from distill_run.models.outputs import Outputs
from distill_run.objectives.soft import SoftTargets
from distill_run.objectives.total import TotalLoss
from distill_run.pipeline import run
from distill_run.report.run_report import RunReport
from helpers import Array, TinyClassifier, message_of, numpy_log_softmax, some_logits

MEMBERS = ((0.5, some_logits(0, 6, 4)), (0.3, some_logits(1, 6, 4)), (0.2, some_logits(2, 6, 4)))
TENSORS = tuple((weight, torch.from_numpy(logits)) for weight, logits in MEMBERS)
STUDENT = some_logits(3, 6, 4)


def mean_probabilities(temperature: float) -> Array:
    parts = [weight * np.exp(numpy_log_softmax(logits, temperature)) for weight, logits in MEMBERS]
    return np.sum(parts, axis=0)  # type: ignore[no-any-return]


def teachers_run(folder: Path, *overrides: str, name: str = "run") -> RunReport:
    small = [*TINY, "training.teacher.epochs=1", "training.student.epochs=1", "baseline=false"]
    return run(compose_config([*small, f"store_dir={folder / 'store'}", *overrides]), folder / name)


def test_softened_logits_give_the_mean_of_the_softened_probabilities() -> None:
    for temperature in (1.0, 4.0, 20.0):
        softened = (averaged_logits(TENSORS, temperature) / temperature).softmax(1)
        np.testing.assert_allclose(softened.numpy(), mean_probabilities(temperature), rtol=1e-10)
    decisions = Outputs.of_several(TENSORS).logits.argmax(1)
    assert decisions.tolist() == mean_probabilities(1.0).argmax(1).tolist()


def test_soft_targets_of_several_are_those_of_their_mean_at_the_temperature() -> None:
    """log(mean probabilities) divided by the temperature would be another distribution."""
    soft = SoftTargets(temperature=4.0, alpha=1.0, weight=1.0, divergence="forward", standardize_logits=False)
    batch = Batch(torch.arange(6), torch.zeros(6, 1, 1, 1), torch.zeros(6, dtype=torch.int64), 0)
    term = soft.term(batch, Outputs(torch.from_numpy(STUDENT)), Outputs.of_several(TENSORS))
    teacher, log_student = mean_probabilities(4.0), numpy_log_softmax(STUDENT, 4.0)
    expected = 16 * (teacher * (np.log(teacher) - log_student)).sum() / 6
    assert term.item() == pytest.approx(expected, rel=1e-10)


def test_logits_are_standardised_teacher_by_teacher() -> None:
    soft = SoftTargets(temperature=2.0, alpha=1.0, weight=1.0, divergence="forward", standardize_logits=True)
    batch = Batch(torch.arange(6), torch.zeros(6, 1, 1, 1), torch.zeros(6, dtype=torch.int64), 0)
    loss, _ = TotalLoss({"distillation": soft}, 0.0).losses(
        batch, Outputs(torch.from_numpy(STUDENT)), Outputs.of_several(TENSORS)
    )

    def z(logits: Array) -> Array:
        result: Array = (logits - logits.mean(1, keepdims=True)) / logits.std(1, keepdims=True)
        return result

    teacher = np.sum([weight * np.exp(numpy_log_softmax(z(logits), 2.0)) for weight, logits in MEMBERS], axis=0)
    expected = 4 * (teacher * (np.log(teacher) - numpy_log_softmax(z(STUDENT), 2.0))).sum() / 6
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_an_ensemble_of_equal_members_is_that_member() -> None:
    torch.manual_seed(0)
    network = Network(TinyClassifier(in_channels=1, image_size=(4, 4), num_classes=3), [0.5], [0.5]).eval()
    images = torch.rand(5, 1, 4, 4)
    together = Ensemble([network, network], [0.25, 0.75])(images)
    torch.testing.assert_close(together, network(images).log_softmax(1))


@pytest.mark.pages
def test_seeds_and_architectures_make_teachers_and_the_report_has_their_mean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ("teacher_seed=[0,1]", "more_teachers=mlp", "more_teachers.mlp.hidden=[8]", "teacher_weights=[2,1,1,4]")
    report = teachers_run(tmp_path, *overrides)
    text = capsys.readouterr().out
    assert "4 teachers: weights [0.25, 0.125, 0.125, 0.5], validation accuracy of their mean " in text
    assert "teacher 4: mlp " in text
    teacher = report.summary["teacher"]
    assert teacher["architecture"] == "cnn_tiny + cnn_tiny + mlp + mlp"
    assert teacher["origin"] == "averaged over 4 teachers"
    entries = list((tmp_path / "store" / "teacher").iterdir())
    assert len(entries) == 4
    assert len(list((tmp_path / "store" / "logits").iterdir())) == 4
    assert report.summary["guided_by"] == "logit bank"
    assert "was averaged over 4 teachers" in (report.run_dir / "report.md").read_text()


def test_several_teachers_live_and_from_the_bank_teach_alike(tmp_path: Path) -> None:
    how = ("teacher_seed=[0,1]", "mode.alpha=1", "mode.temperature=2")
    banked = teachers_run(tmp_path, *how)
    live = teachers_run(tmp_path, *how, "logit_bank_gigabytes=0", name="live")
    assert live.summary["guided_by"] == "live teacher"
    for figure in ("nll", "accuracy"):
        one, other = (each.summary["student"]["last"]["val"][figure] for each in (banked, live))
        assert one == pytest.approx(other, abs=1e-3)


def test_one_of_several_teachers_that_counts_alone_is_the_teacher(tmp_path: Path) -> None:
    """With nearly all of the weight, a member's student is the same as with that member alone."""
    alone = teachers_run(tmp_path, "mode.alpha=1")
    heavy = teachers_run(tmp_path, "mode.alpha=1", "teacher_seed=[0,1]", "teacher_weights=[1,1e-12]", name="heavy")
    figures = [report.summary["student"]["last"]["val"]["nll"] for report in (alone, heavy)]
    assert figures[1] == pytest.approx(figures[0], abs=1e-4)


def test_checkpoints_may_be_several(tmp_path: Path) -> None:
    first = teachers_run(tmp_path, "teacher_seed=[0,1]")
    paths = [path / "weights.pt" for path in sorted((tmp_path / "store" / "teacher").iterdir())]
    given = f"teacher_checkpoint=[{','.join(map(str, paths))}]"
    report = teachers_run(tmp_path, given, name="given")
    assert report.summary["teacher"]["selected"]["test"]["accuracy"] == pytest.approx(
        first.summary["teacher"]["selected"]["test"]["accuracy"]
    )


def test_weights_that_do_not_match_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    assert message_of(teachers_run, tmp_path, "teacher_seed=[0,1]", "teacher_weights=[1,2,3]") == (
        "teacher_weights has 3 numbers, the number of teachers is 2\n"
        "  write one for each: checkpoints first, then teacher=, then more_teachers=, each with all of its seeds"
    )
    assert not (tmp_path / "run").exists()
