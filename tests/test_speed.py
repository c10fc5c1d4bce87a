"""What inference costs: repetitions, quartiles and turns by a fake clock, memory by counting, and the report's rows."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from torch import nn

from distill_run.commands.runner import run_alone, run_recorded
from distill_run.config.compose import compose
from distill_run.config.schema import Settings
from distill_run.config.settings import compose_config
from distill_run.data.source import ImageShape
from distill_run.engine import speed, timing
from distill_run.engine.speed import Place, TorchSubject, measure_speeds
from distill_run.engine.timing import Call, Inference, affordable_repetitions, latency_seconds, time_in_turn
from distill_run.errors import UserError, user_error
from distill_run.files import RunFiles
from distill_run.models.network import count_bytes
from distill_run.report.cells import speed_figures
from distill_run.report.run_report import RunReport, read_report
from helpers import TinyClassifier

CPU = torch.device("cpu")
SHAPE = ImageShape(3, (8, 8), 10)


class Clock:
    """A clock that stands still but where a call lets time pass."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def call(self, name: str, *seconds: float) -> Call:
        """A call that takes these seconds, in turn; the last for ever."""
        left = list(seconds)

        def compute() -> None:
            self.calls.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return compute


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timing, "perf_counter", lambda: clock.now)
    return clock


@pytest.mark.parametrize(
    ("seconds", "repetitions"), [(1e-6, 100), (0.001, 40), (0.01, 10), (0.1, 10), (0.15, 6), (0.5, 3), (60.0, 3)]
)
def test_a_slow_call_is_repeated_less_often(seconds: float, repetitions: int) -> None:
    assert affordable_repetitions(seconds) == repetitions


def test_the_first_call_does_not_count_and_the_others_give_quartiles(clock: Clock) -> None:
    # The warm-up of 9 s is no sample; those of 1 to 5 s are: at most three, as none is affordable.
    [found] = time_in_turn([clock.call("slow", 9.0, 1.0, 2.0, 5.0)])
    assert (found.repetitions, found.lower, found.median, found.upper) == (3, 1.5, 2.0, 3.5)


def test_the_calls_take_turns(clock: Clock) -> None:
    time_in_turn([clock.call("a", 0.25), clock.call("b", 0.25)])
    assert affordable_repetitions(0.25) == 4
    assert "".join(clock.calls) == "aabb" + "ab" * 3


class FakeSubject:
    """A network that takes so long for an image, and that knows what was asked of it."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.clock, self.seconds = clock, seconds
        self.asked: list[tuple[str, int | None, int, int]] = []

    def runs_on(self, device: str) -> bool:
        return device == "cpu"

    def start(self, place: Place, num_images: int) -> Call:
        self.asked.append((*vars(place).values(), num_images, torch.get_num_threads()))
        return self.clock.call("", num_images * self.seconds)

    def memory_bytes(self, place: Place, num_images: int) -> int | None:
        return None


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_each_place_measures_one_image_and_a_batch_with_its_threads(clock: Clock) -> None:
    fast, slow, slowest = FakeSubject(clock, 0.001), FakeSubject(clock, 0.01), FakeSubject(clock, 0.2)
    # On a GPU that no subject runs on, nothing is measured.
    found = measure_speeds([fast, slow, slowest], torch.device("cuda"))
    assert fast.asked == [("cpu", 1, 1, 1), ("cpu", 1, 64, 1), ("cpu", 2, 1, 2), ("cpu", 2, 64, 2)]
    assert [inference.batch_size for inference in found[1]] == [1, 8, 1, 8]
    assert [inference.batch_size for inference in found[2]] == [1, 1]
    assert torch.get_num_threads() == 2
    assert found[0][1].median == pytest.approx(0.064)
    assert found[0][1].images_per_second == pytest.approx((1000, 1000, 1000))
    assert latency_seconds(found[0]) == pytest.approx(0.001)
    assert latency_seconds(()) is None


def test_one_thread_is_measured_once(clock: Clock) -> None:
    [found] = measure_speeds([FakeSubject(clock, 0.001)], CPU)
    assert [(inference.threads, inference.batch_size) for inference in found] == [(1, 1), (1, 64)]


def test_the_network_itself_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "time_in_turn", lambda calls: [call() and None for call in calls] and [])
    network = TinyClassifier(in_channels=3, image_size=(8, 8), num_classes=10).train()
    subject = TorchSubject.of(network, SHAPE)
    subject.start(Place("cpu", 1), 4)()
    assert network.training
    assert not subject.network.training
    assert int(network.norm.num_batches_tracked or 0) == 0
    images = subject.images(4)
    assert images.shape == (4, 3, 8, 8)
    assert torch.equal(images, subject.images(4))
    assert 0 <= images.min() < images.max() <= 1


def test_memory_is_that_of_the_weights_and_of_what_is_needed_at_one_time() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Flatten(), nn.Linear(256, 2)
    )
    subject = TorchSubject.of(network, SHAPE)
    # At most, the first convolution's output and what the ReLU makes of it are there together; a view adds nothing.
    for num_images in (1, 5):
        found = subject.memory_bytes(Place("cpu", 1), num_images)
        assert found == count_bytes(network) + num_images * 2 * 8 * 8 * 8 * 4
    assert subject.memory_bytes(Place("mps", None), 1) is None


def inference(threads: int | None, batch_size: int, seconds: float, device: str = "cpu") -> Inference:
    return Inference(device, threads, batch_size, 10, seconds / 2, seconds, seconds * 2, 12_345)


def test_the_figures_of_a_table() -> None:
    slow = inference(4, 16, 0.032)
    speeds = [inference(None, 1, 0.5, "cuda"), inference(1, 1, 0.002), inference(1, 64, 0.064)]
    speeds += [inference(4, 1, 0.001), slow]
    texts = [(figure.label, figure.median, figure.quartiles, figure.note) for figure in speed_figures(speeds)]
    assert texts == [
        ("Milliseconds for one image, cuda", "500", "250 to 1,000", ""),
        ("Images per second, cuda", "2", "1 to 4", ", 1 at a time"),
        ("Milliseconds for one image, 1 thread", "2", "1 to 4", ""),
        ("Milliseconds for one image, 4 threads", "1", "0.5 to 2", ""),
        ("Images per second, 4 threads", "500", "250 to 1,000", ", 16 at a time"),
        ("Memory for one image", "12.3kB", "", ""),
    ]
    assert speed_figures([]) == []


def test_a_run_reports_the_speed_of_its_networks(tiny_report: RunReport) -> None:
    for _, network in tiny_report.networks:
        assert [(each.threads, each.batch_size) for each in network.speed] == [(1, 1), (1, 64)]
        assert all(0 < each.lower_quartile <= each.median <= each.upper_quartile for each in network.speed)
        assert all(each.memory_bytes is not None and each.memory_bytes > network.bytes for each in network.speed)
    assert read_report(tiny_report.run_dir) == tiny_report
    assert tiny_report.repeats[0].student == tiny_report.student
    page = RunFiles(tiny_report.run_dir).report_md.read_text()
    for words in ("| Milliseconds for one image, 1 thread |", "| Images per second, 1 thread |", "medians over "):
        assert words in page


def test_a_report_without_speed_is_read(tiny_report: RunReport, tmp_path: Path) -> None:
    content = tiny_report.to_dict()
    for stage in ("teacher", "baseline", "student"):
        del content[stage]["speed"]
    (tmp_path / "report.json").write_text(json.dumps(content))
    assert read_report(tmp_path).student.speed == ()


@pytest.mark.parametrize(
    ("overrides", "measured"),
    [([], (False, 0)), (["measure_speed=true"], (True, 0)), (["robustness_images=9"], (False, 9))],
)
def test_points_of_a_sweep_are_measured_only_when_that_is_asked_for(
    overrides: list[str], measured: tuple[bool, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[tuple[bool, int]] = []

    def story_of(settings: Settings, *_: object) -> NoReturn:
        seen.append((settings.measure_speed, settings.robustness_images))
        raise user_error("stopped", "the test knows enough")

    monkeypatch.setattr("distill_run.pipeline.story_of", story_of)
    run_recorded(lambda: compose(overrides).config, overrides, tmp_path / "point", "")
    with pytest.raises(UserError):
        run_alone(compose_config(), tmp_path / "alone", "")
    assert seen == [measured, (True, 500)]
