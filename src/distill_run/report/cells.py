"""The figures of one network as texts, for the tables of the console and of the pages."""

from distill_run.report.run_report import NetworkReport
from distill_run.units import NONE, duration, percent, quantity


def network_cells(network: NetworkReport) -> dict[str, str]:
    """What a table shows of a network, by the figure's name."""
    selected, last = network.selected, network.last
    rate, speed, memory = network.learning_rate, network.images_per_second, network.peak_memory_bytes
    return {
        "accuracy": percent(selected.test.accuracy),
        "last_accuracy": percent(last.test.accuracy),
        "top5_accuracy": percent(selected.test.top5_accuracy),
        "nll": f"{selected.test.nll:.3f}",
        "ece": f"{selected.test.ece:.3f}",
        "val_accuracy": percent(selected.val.accuracy),
        "selected_epoch": NONE if selected.epoch is None else f"{selected.epoch} of {last.epoch}",
        "params": f"{network.params:,}",
        "macs": quantity(network.macs),
        "bytes": quantity(network.bytes) + "B",
        "learning_rate": NONE if rate is None else f"{rate:g}",
        "train_time": _train_time(network),
        "images_per_second": NONE if speed is None else f"{speed:,.0f}",
        "data_share": NONE if network.data_share is None else f"{network.data_share:.0%}",
        "peak_memory": NONE if memory is None else quantity(memory) + "B",
    }


def _train_time(network: NetworkReport) -> str:
    if network.train_seconds == 0:
        return "elsewhere"
    return duration(network.train_seconds) + (" (reused)" if network.reused else "")
