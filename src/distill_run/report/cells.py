"""Figures as texts, for the tables of the console and of the pages."""

from statistics import stdev

from distill_run.report.run_report import NetworkReport, RunReport
from distill_run.units import NONE, change, duration, percent, quantity

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


def repeat_rows(report: RunReport) -> list[list[str]]:
    """For each seed, and for their mean, the test accuracy alone and with the teacher, and the change."""
    rows = []
    for repeat in report.repeats:
        alone = None if repeat.baseline is None else repeat.baseline.selected.test.accuracy
        student = repeat.student.selected.test.accuracy
        rows.append([f"seed {repeat.seed}", percent(alone), percent(student), change(repeat.change)])
    assert report.means is not None
    means = (report.means.baseline, report.means.student)
    rows.append(["mean", *(NONE if each is None else percent(each.mean) for each in means), change(report.change)])
    changes = [repeat.change for repeat in report.repeats if repeat.change is not None]
    spreads = [*(None if each is None else each.sd for each in means), stdev(changes) if len(changes) > 1 else None]
    return [*rows, ["standard deviation", *(NONE if sd is None else f"{100 * sd:.2f}" for sd in spreads)]]


def _train_time(network: NetworkReport) -> str:
    if network.train_seconds == 0:
        return "elsewhere"
    return duration(network.train_seconds) + (" (reused)" if network.reused else "")
