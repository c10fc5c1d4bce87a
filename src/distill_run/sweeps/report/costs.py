"""What the networks of a sweep cost, beside how good they are."""

from collections.abc import Iterable, Sequence
from statistics import fmean

from distill_run.engine.timing import latency_seconds
from distill_run.report.network_report import NetworkReport
from distill_run.sweeps.grouping import Sweep
from distill_run.sweeps.report.sweep_report import NetworkCost
from distill_run.sweeps.setting import Setting


def network_costs(sweep: Sweep) -> tuple[NetworkCost, ...]:
    """A student for each setting with a completed run; a teacher and a baseline for each kind of architecture."""
    students = [_student(index, setting) for index, setting in enumerate(sweep.settings) if setting.replicates]
    reports = [replicate.report for setting in sweep.settings for replicate in setting.replicates.values()]
    teachers = [report.teacher for report in reports]
    baselines = [report.baseline for report in reports if report.baseline is not None]
    return (*_kinds("teacher", teachers), *_kinds("baseline", baselines), *students)


def _student(index: int, setting: Setting) -> NetworkCost:
    students = [replicate.report.student for replicate in setting.replicates.values()]
    val_accuracy = setting.mean("val_accuracy")
    assert val_accuracy is not None
    return _cost("student", students, val_accuracy, index)


def _kinds(stage: str, networks: Iterable[NetworkReport]) -> list[NetworkCost]:
    """The mean of the trainings of each architecture; a training that several runs share counts once."""
    kinds: dict[tuple[str, int, int], list[NetworkReport]] = {}
    for network in networks:
        kinds.setdefault((network.architecture, network.params, network.macs), []).append(network)
    costs = []
    for several in kinds.values():
        accuracies = {network.fingerprint: network.selected.val.accuracy for network in several}
        costs.append(_cost(stage, several, fmean(accuracies.values()), None))
    return costs


def _cost(stage: str, networks: Sequence[NetworkReport], val_accuracy: float, setting: int | None) -> NetworkCost:
    first = networks[0]
    latencies = [found for network in networks if (found := latency_seconds(network.speed)) is not None]
    latency = fmean(latencies) if latencies else None
    return NetworkCost(stage, first.architecture, setting, val_accuracy, first.bytes, first.macs, latency)
