"""The words and figures of a report's pages: what is said, but not how it is set."""

import json
from typing import Any

from torch import Tensor

from distill_run.errors import show
from distill_run.report.chance import Paired, compare, verdict, wilson_interval
from distill_run.report.summary import Findings, networks_of
from distill_run.report.typesetting import Tile
from distill_run.units import NONE, duration, quantity

TIMES = "\N{MULTIPLICATION SIGN}"
SHOWN_HASH = 12
GUIDED_BY = {
    "logit bank": "The student was given its logits from the logit bank.",
    "live teacher": "It ran live in every step of the student.",
    "nothing": "The student's mode asks nothing of it.",
}


def title(findings: Findings) -> str:
    """What the run was, in one line."""
    summary = findings.summary
    teacher, student = summary["teacher"]["architecture"], summary["student"]["architecture"]
    return f"{student} learns from {teacher} on {summary['dataset']['name']}"


def labels(findings: Findings) -> list[str]:
    """The run's mode with its keys, and its seed."""
    mode = findings.summary["mode"]
    keys = [
        f"{key} {show(value)}" for key, value in mode.items() if key not in ("name", "also") and not key.startswith("_")
    ]
    also = [
        f"also {name}, weight {node.get('weight', node.get('alpha'))}" for name, node in mode.get("also", {}).items()
    ]
    return [f"mode {mode['name']}", *keys, *also, f"seed {findings.summary['seed']}"]


def tiles(findings: Findings) -> list[Tile]:
    """The key figures; what needs a baseline is left out where there is none."""
    summary = findings.summary
    student, teacher, baseline = summary["student"], summary["teacher"], summary["baseline"]
    accuracy = student["selected"]["test"]["accuracy"]
    low, high = interval(student, summary["dataset"]["test_size"])
    shown = [Tile("Student's accuracy", f"{accuracy:.2%}", f"on test; 95% interval {low:.1%} to {high:.1%}")]
    if baseline is not None:
        alone = baseline["selected"]["test"]["accuracy"]
        gap = summary["gap_recovered"]
        note = "of the way from baseline to teacher" if gap is not None else "the teacher is not above the baseline"
        shown += [
            Tile(
                "Change by distillation",
                f"{100 * (accuracy - alone):+.2f}",
                f"points, from {alone:.2%} alone",
            ),
            Tile("Gap recovered", NONE if gap is None else f"{gap:.0%}", note),
        ]
    agreement = summary["fidelity"]["agreement"]
    ratio = teacher["params"] / student["params"]
    sizes = (quantity(teacher["params"]), quantity(student["params"]))
    return [
        *shown,
        Tile("Compression", f"{ratio:.1f}{TIMES}", f"{sizes[0]} to {sizes[1]} parameters"),
        Tile("Teacher agreement", f"{agreement:.2%}", "of test images decided alike"),
    ]


def interval(network: dict[str, Any], num_images: int) -> tuple[float, float]:
    """The approximate 95% interval of a network's accuracy on so many test images, as fractions."""
    return wilson_interval(round(network["selected"]["test"]["accuracy"] * num_images), num_images)


def rightness(findings: Findings, stage: str) -> Tensor:
    """On which test images (N,), bool, the selected network decides right."""
    decisions = findings.networks[stage].selected.test_logits.argmax(1)
    return decisions == findings.dataset.test.targets.cpu()


def chance(findings: Findings) -> str | None:
    """Whether the difference between student and baseline could be chance; None without a baseline."""
    if "baseline" not in findings.networks:
        return None
    paired: Paired = compare(rightness(findings, "student"), rightness(findings, "baseline"))
    return verdict(paired, len(findings.dataset.test))


def answers(findings: Findings) -> list[tuple[str, str]]:
    """What people ask first, in the order in which they ask it."""
    worth = " ".join(filter(None, [findings.summary["conclusion"], chance(findings)]))
    return [
        ("Was distillation worth it?", worth),
        ("Was the teacher really loaded?", _teacher_origin(findings)),
        ("Last epoch or best epoch?", _epochs(findings.summary["student"])),
        (
            "Which file do I ship?",
            "checkpoints/student.pt: the selected student alone, with its normalisation and its class names.",
        ),
    ]


def _teacher_origin(findings: Findings) -> str:
    teacher = findings.summary["teacher"]
    origin = "trained in this run" if teacher["origin"] == "trained" else teacher["origin"]
    test, val = teacher["selected"]["test"]["accuracy"], teacher["selected"]["val"]["accuracy"]
    return (
        f"{teacher['architecture']} was {origin}; its fingerprint begins with "
        f"{teacher['fingerprint'][:SHOWN_HASH]}. It reaches {val:.2%} on validation and {test:.2%} on test. "
        f"{GUIDED_BY[findings.summary['guided_by']]}"
    )


def _epochs(network: dict[str, Any]) -> str:
    selected, last = network["selected"], network["last"]
    if selected["epoch"] == last["epoch"]:
        return f"They are the same here: the last epoch, {last['epoch']}, is also the best on validation."
    return (
        f"Epoch {selected['epoch']}, the best on validation, is the one that is kept: "
        f"{selected['test']['accuracy']:.2%} on test. The last epoch, {last['epoch']}, has "
        f"{last['test']['accuracy']:.2%}."
    )


def stages(findings: Findings) -> list[tuple[str, str]]:
    """The networks that there are, each with its architecture's name."""
    return [(stage, network["architecture"]) for stage, network in networks_of(findings.summary)]


def table(findings: Findings) -> list[tuple[str, list[str]]]:
    """The networks side by side: a label, and a cell for each of `stages`."""
    networks = [network for _, network in networks_of(findings.summary)]
    columns = [_quality(network) | _cost(network) for network in networks]
    rows = [(label, [column[label] for column in columns]) for label in columns[0]]
    num_images = findings.summary["dataset"]["test_size"]
    spans = [" to ".join(f"{end:.1%}" for end in interval(network, num_images)) for network in networks]
    return [rows[0], ("95% interval", spans), *rows[1:]]


def _quality(network: dict[str, Any]) -> dict[str, str]:
    selected, last = network["selected"], network["last"]
    test = selected["test"]
    return {
        "Test accuracy": f"{test['accuracy']:.2%}",
        "The same after the last epoch": f"{last['test']['accuracy']:.2%}",
        "Top-5 accuracy": f"{test['top5_accuracy']:.2%}",
        "Negative log-likelihood (nats)": f"{test['nll']:.3f}",
        "Calibration error (ECE)": f"{test['ece']:.3f}",
        "Validation accuracy": f"{selected['val']['accuracy']:.2%}",
        "Selected epoch": NONE if selected["epoch"] is None else f"{selected['epoch']} of {last['epoch']}",
    }


def _cost(network: dict[str, Any]) -> dict[str, str]:
    seconds, speed, waiting = network["train_seconds"], network["images_per_second"], network["data_share"]
    memory, rate = network["peak_memory_bytes"], network["learning_rate"]
    reused = " (reused)" if network["reused"] else ""
    return {
        "Parameters": f"{network['params']:,}",
        "Multiply-adds for an image": quantity(network["macs"]),
        "Size of the weights": quantity(network["bytes"]) + "B",
        "Learning rate": NONE if rate is None else f"{rate:g}",
        "Training time": duration(seconds) + reused if seconds else "elsewhere",
        "Training images a second": NONE if speed is None else f"{speed:,.0f}",
        "Time spent waiting for data": NONE if waiting is None else f"{waiting:.0%}",
        "Peak memory of the device": NONE if memory is None else quantity(memory) + "B",
    }


def dataset(findings: Findings) -> str:
    """The dataset's sizes, in a sentence."""
    figures = findings.summary["dataset"]
    channels, height, width = findings.dataset.test.shape
    return (
        f"{figures['name']}: {figures['num_classes']} classes, images of "
        f"{channels} {TIMES} {height} {TIMES} {width} (channels, height, width); "
        f"{figures['train_size']:,} images to train, {figures['val_size']:,} to select by, "
        f"{figures['test_size']:,} to test, which were read once, at the end."
    )


def loading_code(findings: Findings) -> str:
    """A few lines of Python that load the student and use it."""
    channels, height, width = findings.dataset.test.shape
    path = _quoted(findings.run_dir / "checkpoints" / "student.pt")
    code_dir = findings.settings.code_dir
    arguments = path if code_dir is None else f"{path}, code_dir={_quoted(code_dir)}"
    return (
        "import torch\n"
        "from distill_run.checkpoint import load_network\n\n"
        f"network = load_network({arguments})\n"
        f"images = torch.rand(1, {channels}, {height}, {width})  # yours: float (N, C, H, W) in 0..1\n"
        "probabilities = network(images).softmax(1)  # (N, K)\n"
    )


def _quoted(path: object) -> str:
    return json.dumps(str(path), ensure_ascii=False)
