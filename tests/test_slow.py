"""What takes long: compiling networks, and the benchmark. Marked `slow`."""

import shutil
from pathlib import Path

import pytest

from conftest import TINY
from distill_run.benchmarks import fused, loop
from distill_run.benchmarks import sweep as sweep_benchmark
from distill_run.config.settings import compose_config
from distill_run.pipeline import run

pytestmark = pytest.mark.slow


def test_a_compiled_network_learns_the_same(tmp_path: Path) -> None:
    if shutil.which("c++") is None:
        pytest.skip("torch.compile needs a C++ compiler on the CPU")
    accuracies = []
    for compiled in ("false", "true"):
        overrides = [*TINY, f"device.compile={compiled}", f"store_dir={tmp_path / 'store'}"]
        report = run(compose_config(overrides), tmp_path / compiled)
        accuracies.append(report.summary["student"]["last"]["val"]["nll"])
    assert accuracies[1] == pytest.approx(accuracies[0], rel=1e-3)


def test_bf16_trains_on_any_cpu(tmp_path: Path) -> None:
    overrides = [*TINY, "device.precision=bf16", f"store_dir={tmp_path / 'store'}"]
    report = run(compose_config(overrides), tmp_path / "run")
    assert report.summary["student"]["last"]["val"]["nll"] < 3


def test_the_benchmark_prints_both_speeds_and_their_ratio(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "NUM_IMAGES", 640)
    monkeypatch.setattr(loop, "ROUNDS", 1)
    loop.main(["teacher=cnn_tiny", "student=cnn_tiny", "device=cpu", "device.precision=fp32"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-7] == "cnn_tiny -> cnn_tiny, batch 128, cpu, fp32, images/s"
    assert [line.split("  ")[0] for line in lines[-6:]] == [
        "DataLoader + PIL, fp32",
        "distill-run, teacher live",
        "distill-run, logit bank",
        "forward, backward, step",
        "live / DataLoader",
        "logit bank / bare loop",
    ]


def test_the_sweep_s_benchmark_prints_both_ways_and_their_ratio(
    photos: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--train-images", "24", "--test-images", "12", "--epochs", "1"]
    networks = ["teacher=cnn_tiny", "student=cnn_tiny", "device=cpu", "training.student.batch_size=4"]
    sweep_benchmark.main([str(photos), *sizes, *networks])
    lines = capfd.readouterr().out.splitlines()
    assert lines[-3].startswith("the usual way ")
    assert ", 12 students " in lines[-3]
    assert ", 12 students " in lines[-2]
    assert float(lines[-1].split()[1]) > 0


@pytest.mark.parametrize("way", ["in-turn", "stacked"])
def test_the_benchmark_of_students_that_train_together_prints_both_times_and_their_ratio(
    way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fused.main(
        ["--way", way, "--train-images", "256", "--rounds", "1", "teacher=cnn_tiny", "student=cnn_tiny", "device=cpu"]
    )
    lines = capsys.readouterr().out.splitlines()[-4:]
    assert lines[0] == f"cnn_tiny -> cnn_tiny, 12 students, cpu, fp32, {way}"
    assert [line.split("  ")[0] for line in lines[1:]] == ["one after the other", "together", "ratio"]
