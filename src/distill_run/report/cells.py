"""Figures as texts, for the tables of the console and of the pages."""

from collections.abc import Sequence
from statistics import stdev
from typing import NamedTuple

from distill_run.engine.timing import BATCH_SIZE, Inference
from distill_run.report.network_report import Means, NamedNetwork, NetworkReport, RepeatReport
from distill_run.units import NONE, change, counted, duration, percent, quantity, three_digits

# The figures of a table that shows the networks of a run in rows, with their headings.
NETWORK_COLUMNS = {
    "accuracy": "test acc",
    "top5_accuracy": "top-5",
    "nll": "nll",
    "ece": "ece",
    "params": "params",
    "macs": "MACs",
    "bytes": "size",
    "train_time": "trained in",
}
REPEAT_COLUMNS = ["", "alone", "with the teacher", "change"]


def network_cells(network: NetworkReport) -> dict[str, str]:
    """What a table shows of a network, by the figure's name."""
    selected, last = network.selected, network.last
    rate, speed, memory = network.learning_rate, network.images_per_second, network.peak_memory_bytes
    return {
        "accuracy": percent(selected.test.accuracy),
        "last_accuracy": percent(last.test.accuracy),
        "balanced_accuracy": percent(selected.test.balanced_accuracy),
        "macro_f1": percent(selected.test.macro_f1),
        "top5_accuracy": percent(selected.test.top5_accuracy),
        "nll": f"{selected.test.nll:.3f}",
        "brier": NONE if selected.test.brier is None else f"{selected.test.brier:.3f}",
        "ece": f"{selected.test.ece:.3f}",
        "val_accuracy": percent(selected.val.accuracy),
        "selected_epoch": NONE if selected.epoch is None else f"{selected.epoch} of {last.epoch}",
        "params": f"{network.params:,}",
        "macs": quantity(network.macs),
        "bytes": quantity(network.bytes) + "B",
        "learning_rate": NONE if rate is None else f"{rate:g}",
        "train_time": _train_time(network),
        "steps": NONE if network.steps is None else f"{network.steps:,}",
        "images_per_second": NONE if speed is None else f"{speed:,.0f}",
        "data_share": NONE if network.data_share is None else f"{network.data_share:.0%}",
        "peak_memory": NONE if memory is None else quantity(memory) + "B",
    }


class SpeedFigure(NamedTuple):
    """A figure of inference: its label in the rows of a page, its heading over a column, and its texts.

    `quartiles` and `note` are empty where there are none.
    """

    label: str
    heading: str
    median: str
    quartiles: str = ""
    note: str = ""


def speed_figures(speed: Sequence[Inference]) -> list[SpeedFigure]:
    """What tables show of inference; nothing where it was not measured. The throughput is that of all threads."""
    figures, memories = [], []
    num_threads = max((each.threads or 0 for each in speed), default=0)
    for each in speed:
        where = each.device if each.threads is None else counted(each.threads, "thread")
        if each.batch_size == 1:
            texts = _quartiles(each.milliseconds)
            figures.append(SpeedFigure(f"Milliseconds for one image, {where}", f"ms, {where}", *texts))
            size = NONE if each.memory_bytes is None else quantity(each.memory_bytes) + "B"
            memories.append(SpeedFigure("Memory for one image", "memory", size))
        if each.threads in (None, num_threads) and each is _largest_batch(speed, each):
            texts = _quartiles(each.images_per_second)
            note = "" if each.batch_size == BATCH_SIZE else f", {each.batch_size} at a time"
            figures.append(SpeedFigure(f"Images per second, {where}", f"images/s, {where}", *texts, note))
    return [*figures, *memories[:1]]  # that of the device of the run, which comes first


def _quartiles(numbers: tuple[float, float, float]) -> tuple[str, str]:
    low, median, high = map(three_digits, numbers)
    return median, f"{low} to {high}"


def _largest_batch(speed: Sequence[Inference], where: Inference) -> Inference:
    same = [each for each in speed if (each.device, each.threads) == (where.device, where.threads)]
    return max(same, key=lambda each: each.batch_size)


def network_rows(networks: Sequence[NamedNetwork]) -> list[list[str]]:
    """For each network, its stage with its architecture, and the figures of NETWORK_COLUMNS."""
    rows = []
    for stage, network in networks:
        cells = network_cells(network)
        rows.append([f"{stage} {network.architecture}", *(cells[name] for name in NETWORK_COLUMNS)])
    return rows


def repeat_rows(repeats: Sequence[RepeatReport], of_all: Means) -> list[list[str]]:
    """For each seed, and for their mean, the test accuracy alone and with the teacher, and the change."""
    rows = []
    for repeat in repeats:
        alone = None if repeat.baseline is None else repeat.baseline.selected.test.accuracy
        student = repeat.student.selected.test.accuracy
        rows.append([f"seed {repeat.seed}", percent(alone), percent(student), change(repeat.change)])
    means = (of_all.baseline, of_all.student)
    mean_change = None if of_all.baseline is None else of_all.student.mean - of_all.baseline.mean
    rows.append(["mean", *(NONE if each is None else percent(each.mean) for each in means), change(mean_change)])
    changes = [repeat.change for repeat in repeats if repeat.change is not None]
    spreads = [*(None if each is None else each.sd for each in means), stdev(changes) if len(changes) > 1 else None]
    return [*rows, ["standard deviation", *(NONE if sd is None else f"{100 * sd:.2f}" for sd in spreads)]]


def _train_time(network: NetworkReport) -> str:
    if network.train_seconds == 0:
        return "elsewhere"
    return duration(network.train_seconds) + (" (reused)" if network.reused else "")
