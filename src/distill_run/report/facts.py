"""The sentences and figures of a run's pages. The templates say how they are set."""

from distill_run.engine.timing import BATCH_SIZE
from distill_run.errors import show
from distill_run.report.cells import SpeedFigure, network_cells, speed_figures
from distill_run.report.chance import accuracy_interval
from distill_run.report.conclusion import interval_text
from distill_run.report.figures import Agreement
from distill_run.report.results import load_call
from distill_run.report.run_report import RunReport
from distill_run.report.summary import Findings
from distill_run.report.typesetting import Tile
from distill_run.units import NONE, change, counted, percent, quantity

TIMES = "\N{MULTIPLICATION SIGN}"
ROWS = {
    "accuracy": "Test accuracy",
    "interval": "95% interval",
    "last_accuracy": "Test accuracy after the last epoch",
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "Macro F1",
    "top5_accuracy": "Top-5 accuracy",
    "nll": "Negative log-likelihood (lower is better)",
    "brier": "Brier score (lower is better)",
    "ece": "Calibration error (ECE)",
    "val_accuracy": "Validation accuracy",
    "selected_epoch": "Selected epoch",
    "params": "Parameters",
    "macs": "Multiply-adds per image",
    "bytes": "Size of the weights",
    "learning_rate": "Learning rate",
    "train_time": "Training time",
    "steps": "Steps of the optimizer",
    "images_per_second": "Training images per second",
    "data_share": "Time spent waiting for data",
    "peak_memory": "Peak device memory",
}


def title(report: RunReport) -> str:
    """What the run was, in one line."""
    assistants = ", then ".join(network.architecture for network in report.assistants)
    through = f" through {assistants}" if assistants else ""
    teacher, student = report.teacher.architecture, report.student.architecture
    if report.is_control:
        return f"{student} learns without a teacher on {report.dataset.name}, as a control"
    return f"{student} learns from {teacher}{through} on {report.dataset.name}"


def labels(report: RunReport) -> list[str]:
    """The run's mode with its keys, and its seeds."""
    found = [f"mode {report.mode['name']}"]
    for key, value in report.mode.items():
        if key not in ("name", "also") and not key.startswith("_"):
            found.append(f"{key} {show(value)}")
    for name, node in report.mode.get("also", {}).items():
        weights = [f"{key} {show(node[key])}" for key in ("alpha", "weight") if key in node]
        found.append(", ".join([f"also {name}", *weights]))
    num_repeats = len(report.repeats)
    last = f" to {report.seed + num_repeats - 1}" if num_repeats > 1 else ""
    return [*found, f"seed{'s' if last else ''} {report.seed}{last}"]


def tiles(report: RunReport) -> list[Tile]:
    """The key figures; those that need a baseline are left out where there is none."""
    student, teacher = report.student, report.teacher
    low, high = accuracy_interval(student.selected.test.accuracy, report.dataset.test_size)
    ratio = teacher.params / student.params
    sizes = f"{quantity(teacher.params)} to {quantity(student.params)} parameters"
    shipped = f", of seed {report.shipped_seed}, the one to ship" if len(report.repeats) > 1 else ""
    accuracy, agreement = percent(student.selected.test.accuracy), percent(report.fidelity.agreement)
    return [
        Tile("Student's accuracy", accuracy, f"on test{shipped}; 95% interval {low:.1%} to {high:.1%}"),
        *_baseline_tiles(report),
        Tile("Compression", f"{ratio:.1f}{TIMES}" if ratio >= 1 else f"{ratio:.2g}{TIMES}", sizes),
        Tile("Agreement with the teacher", agreement, "test images with the same class from both"),
    ]


def _baseline_tiles(report: RunReport) -> list[Tile]:
    if report.baseline is None or report.failures:
        return []
    gap, difference = report.gap_recovered, report.difference
    is_below = report.teacher.selected.test.accuracy < (report.baseline_accuracy or 0.0)
    absent = "the teacher is below the baseline" if is_below else "the teacher is not clearly above the baseline"
    note = absent if gap is None else "of the way from baseline to teacher"
    if report.gap_interval is not None:
        low, high = report.gap_interval
        note += f"; 95% interval {low:.0%} to {high:.0%}"
    points = f"percentage points, from {percent(report.baseline_accuracy)} alone"
    if difference is not None:
        points += f"; {interval_text(difference)}"
    name = "Change by the control" if report.is_control else "Change by distillation"
    return [
        Tile(name, change(report.change), points),
        Tile("Gap recovered", NONE if gap is None else f"{gap:.0%}", note),
    ]


def table(report: RunReport) -> list[tuple[str, list[str]]]:
    """The networks side by side: each row is a label and a cell for each of `report.networks`."""
    columns = []
    for _, network in report.networks:
        low, high = accuracy_interval(network.selected.test.accuracy, report.dataset.test_size)
        columns.append({**network_cells(network), "interval": f"{low:.1%} to {high:.1%}"})
    rows = [(label, [column[name] for column in columns]) for name, label in ROWS.items()]
    for figures in zip(*(speed_figures(network.speed) for _, network in report.networks), strict=True):
        rows.append((figures[0].label, [_speed(figure) for figure in figures]))
    return rows


def _speed(figure: SpeedFigure) -> str:
    quartiles = f" ({figure.quartiles})" if figure.quartiles else ""
    return f"{figure.median}{quartiles}{figure.note}"


def about_speed(report: RunReport) -> str:
    """What the rows of the speed are; how to get them, where nothing was measured."""
    found = [inference.repetitions for _, network in report.networks for inference in network.speed]
    if not found:
        return (
            "Latency and throughput were not measured in this run: in a sweep, measure_speed=true asks for it, because "
            "runs beside each other slow each other down. distill-measure measures them at any time."
        )
    return (
        "Milliseconds for one image and images per second are those of inference in fp32, of the networks as "
        f"load_network gives them: medians over {min(found)} to {max(found)} repetitions after a warm-up, with the "
        f"quartiles in parentheses. The networks took turns. Where no other number is given, they took {BATCH_SIZE} "
        "images at a time. Networks of one architecture differ by what else the machine did. The memory is that of the "
        "weights and of what the layers give out. On another machine, distill-measure measures them again."
    )


def copying(report: RunReport) -> str:
    """How often the student decides as the teacher does where that is right and where it is wrong; what it means."""
    assert report.agreement_by_teacher is not None
    right, wrong = report.agreement_by_teacher.teacher_right, report.agreement_by_teacher.teacher_wrong
    told = []
    if right.images:
        told.append(
            f"Where the teacher is right ({counted(right.images, 'test image')}), the student decides as it does on "
            f"{percent(right.shares['student'])}{_beside(right)}."
        )
    if wrong.images:
        told.append(
            f"Where it is wrong ({counted(wrong.images, 'test image')}), the student makes the very same mistake on "
            f"{percent(wrong.shares['student'])}{_beside(wrong)}."
        )
    if wrong.images and "baseline" in wrong.shares:
        told.append(
            "The baseline has not seen the teacher: a mistake that it shares is in the image; what the student shares "
            "beyond that, it may have copied."
        )
    return " ".join(told)


def _beside(agreement: Agreement) -> str:
    """The baseline's agreement, where there is one."""
    return f" (the baseline on {percent(agreement.shares['baseline'])})" if "baseline" in agreement.shares else ""


def dataset(findings: Findings) -> str:
    """The dataset's sizes, in a sentence."""
    figures = findings.report.dataset
    channels, height, width = findings.feed.test.shape
    others = f" The student also learned from {figures.unlabelled_size:,} unlabelled images, without their targets."
    others = others if figures.unlabelled_size else ""
    return (
        f"{figures.name}: {figures.num_classes} classes, images of "
        f"{channels} {TIMES} {height} {TIMES} {width} (channels, height, width). "
        f"{figures.train_size:,} images were used to train, {figures.val_size:,} to select, and "
        f"{figures.test_size:,} to test. The test images were read once, at the end.{others}"
    )


def loading_code(findings: Findings, student: str) -> str:
    """A few lines of Python that load the student from its file and use it."""
    channels, height, width = findings.feed.test.shape
    return (
        "import torch\n"
        "from distill_run import load_network\n\n"
        f"network = {load_call(student, findings.settings)}\n"
        f"images = torch.rand(1, {channels}, {height}, {width})  # your images: float (N, C, H, W) in 0..1\n"
        "probabilities = network(images).softmax(1)  # (N, K)\n"
    )
