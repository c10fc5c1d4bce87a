import dataclasses
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from torch import Tensor, nn

import distill_run
from distill_run.engine.evaluate import confusion, measure, reliability
from distill_run.models.network import Network
from distill_run.report import drawing, pictures, plots
from distill_run.report.png import png_of
from distill_run.report.samples import Decision, Sample
from distill_run.stages.trained import Measured, Origin, Trained
from distill_run.units import shorten

ACCURACIES = {"teacher": [0.5, 0.9, 0.8], "baseline": [0.4, 0.6], "student": [0.3, 0.7]}
CURVE: list[dict[str, float | None]] = [
    {"lr": 0.1, "val_accuracy": 0.8, "val_nll": 0.5},
    {"lr": 0.01, "val_accuracy": 0.6, "val_nll": 0.7},
    {"lr": 1.0, "val_accuracy": None, "val_nll": None},
]


def made_up(stage: str, accuracies: list[float], curve: list[dict[str, float | None]] | None = None) -> Trained:
    history: list[dict[str, Any]] = [
        {"epoch": epoch, "train": {"loss": 1 / epoch}, "val": {"accuracy": accuracy}}
        for epoch, accuracy in enumerate(accuracies, start=1)
    ]
    best = max(history, key=lambda row: row["val"]["accuracy"])
    selected, last = (Measured(row["epoch"], row["val"], torch.zeros(1, 2)) for row in (best, history[-1]))
    return Trained(
        stage=stage, name="net", node={}, network=Network(nn.Flatten(), [0.5], [0.5]), fingerprint="f" * 64,
        selected=selected, last=last, origin=Origin.TRAINED, history=tuple(history), learning_rate=0.1,
        lr_search=tuple(curve or ()), select_by="accuracy",
    )  # fmt: skip


@pytest.fixture
def networks() -> dict[str, Trained]:
    return {stage: made_up(stage, accuracies) for stage, accuracies in ACCURACIES.items()}


@pytest.fixture
def logits() -> Tensor:
    return 2 * torch.randn(200, 5, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def targets() -> Tensor:
    return torch.randint(5, (200,), generator=torch.Generator().manual_seed(1))


def lines(figure: Figure, panel: int) -> dict[str, tuple[list[float], list[float]]]:
    """x and y of each labelled line of a panel."""
    return {
        str(line.get_label()): (list(line.get_xdata()), list(line.get_ydata()))  # type: ignore[arg-type]
        for line in figure.axes[panel].lines
        if not str(line.get_label()).startswith("_")
    }


def marks(figure: Figure, label: str) -> list[tuple[list[float], list[float]]]:
    found = [line for line in figure.axes[0].lines if line.get_label() == label]
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in found]  # type: ignore[arg-type]


def texts(figure: Figure) -> list[str]:
    return [artist.get_text() for artist in figure.findobj(Text) if isinstance(artist, Text)]


def test_learning_curves_show_every_epoch(networks: dict[str, Trained]) -> None:
    figure = plots.learning_curves(networks)
    accuracy, loss = lines(figure, 0), lines(figure, 1)
    assert list(accuracy) == ["teacher", "baseline", "student"]
    assert accuracy["teacher"] == ([1, 2, 3], [0.5, 0.9, 0.8])
    assert loss["teacher"] == ([1, 2, 3], [1, 1 / 2, 1 / 3])
    assert accuracy["student"] == ([1, 2], [0.3, 0.7])
    assert marks(figure, "_selected") == [([2], [0.9]), ([2], [0.6]), ([2], [0.7])]
    for axes in figure.axes:
        colours = {line.get_label(): line.get_color() for line in axes.lines}
        assert {stage: colours[stage] for stage in drawing.COLOURS} == drawing.COLOURS


def test_a_teacher_that_was_loaded_is_a_horizontal_line(networks: dict[str, Trained]) -> None:
    teacher = dataclasses.replace(made_up("teacher", [0.9]), history=())
    figure = plots.learning_curves({**networks, "teacher": teacher})
    assert lines(figure, 0)["teacher (loaded)"][1] == [0.9, 0.9]
    assert list(lines(figure, 1)) == ["baseline", "student"]


def test_lr_search_sorts_rates_and_marks_the_chosen_and_the_diverged(networks: dict[str, Trained]) -> None:
    searched = {**networks, "teacher": made_up("teacher", [0.9], CURVE)}
    figure = plots.lr_search_curve(searched)
    assert lines(figure, 0) == {"teacher": ([0.01, 0.1], [0.6, 0.8])}
    assert marks(figure, "_chosen") == [([0.1], [0.8])]
    assert marks(figure, "_diverged")[0][0] == [1.0]
    assert figure.axes[0].get_xscale() == "log"
    assert figure.axes[0].get_xlim()[1] >= 1.0


def test_lr_search_that_both_students_share_is_drawn_once() -> None:
    both = {stage: made_up(stage, [0.9], CURVE) for stage in ("baseline", "student")}
    assert list(lines(plots.lr_search_curve(both), 0)) == ["student"]


def test_confusion_shows_shares_of_rows_and_counts(
    logits: Tensor, targets: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    outline, drawn = plots.outline, []

    def noted(number: str, size: float) -> Any:
        drawn.append(int(number))
        return outline(number, size)

    monkeypatch.setattr(plots, "outline", noted)
    first, last = (
        plots.confusion_matrix(stage, logits, targets, tuple("abcde"), is_first=not is_last, is_last=is_last).axes
        for stage, is_last in (("teacher", False), ("student", True))
    )
    counts = confusion(logits, targets)
    shown = torch.tensor(first[0].images[0].get_array())
    torch.testing.assert_close(shown, counts / counts.sum(1, keepdim=True))
    assert drawn == 2 * counts[counts > 0].tolist()
    places = last[0].collections[0].get_offsets().data.tolist()  # type: ignore[union-attr]
    assert places == counts.nonzero().flip(1).tolist()
    assert [text.get_text() for text in first[0].texts] == list("aabbccddee")  # below and beside
    assert [text.get_text() for text in last[0].texts] == list("abcde")
    assert (len(first), len(last[0].child_axes)) == (1, 1)  # the scale


def test_confusion_of_many_classes_has_no_names_and_no_counts_and_bears_a_class_without_images() -> None:
    many = torch.eye(21)
    only = {"is_first": True, "is_last": True}
    figure = plots.confusion_matrix("student", many, torch.arange(21), tuple(f"c{i}" for i in range(21)), **only)
    assert len(figure.axes[0].get_xticks()) == len(figure.axes[0].get_yticks()) == 0
    assert not figure.axes[0].texts
    assert not figure.axes[0].collections
    figure = plots.confusion_matrix("student", torch.eye(3)[:2], torch.tensor([0, 1]), tuple("abc"), **only)
    assert figure.axes[0].images[0].get_array().tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]  # type: ignore[union-attr]


def test_reliability_shows_filled_bins_and_the_share_of_all(logits: Tensor, targets: Tensor) -> None:
    figure = plots.reliability_diagram("teacher", logits, targets, is_first=True, is_last=False)
    other = plots.reliability_diagram("student", logits / 2, targets, is_first=False, is_last=True)
    confidence, accuracy, share = reliability(logits, targets)
    curve = figure.axes[0].lines[1]
    assert list(curve.get_xdata()) == confidence[share > 0].tolist()  # type: ignore[arg-type]
    assert list(curve.get_ydata()) == accuracy[share > 0].tolist()  # type: ignore[arg-type]
    bars = figure.axes[0].collections[0].get_paths()
    heights = [np.asarray(bar.vertices)[:, 1].max() for bar in bars]
    assert heights == share.tolist()
    ece = measure(logits / 2, targets)["ece"]
    assert other.axes[0].get_title() == f"student: ECE {ece:.3f}"


def test_rates_whose_labels_would_collide_have_no_tick() -> None:
    rates: list[dict[str, float | None]] = [
        {"lr": rate, "val_accuracy": 0.5, "val_nll": 0.5} for rate in (0.1, 0.11, 0.001, 0.01)
    ]
    figure = plots.lr_search_curve({"student": made_up("student", [0.9], rates)})
    assert list(figure.axes[0].get_xticks()) == [0.001, 0.01, 0.1]
    single = plots.lr_search_curve({"student": made_up("student", [0.9], CURVE[:1])})
    assert list(single.axes[0].get_xticks()) == [0.1]


def test_a_decision_is_right_or_wrong_in_signs_and_long_names_are_cut() -> None:
    assert shorten("automobile") == "automobile"
    assert pictures.decision_text(Decision("teacher", "cat", 0.987, True)) == "✓ teacher: cat (99%)"
    assert pictures.decision_text(Decision("student", "a" * 30, 0.5, False)) == f"✗ student: {'a' * 13}… (50%)"


def test_a_long_path_keeps_its_end() -> None:
    assert pictures.name_end("17") == "image 17"
    assert pictures.name_end("test/class/" + "a" * 30 + "1.png") == "…" + "a" * 26 + "1.png"


def test_contact_sheet_has_the_images_in_rows() -> None:
    samples = [Sample(i, str(i), torch.full((3, 4, 8), 50 * i, dtype=torch.uint8), "cat", "", ()) for i in range(4)]
    sheet = pictures.contact_sheet(samples)
    width, height = pictures.CELL_SIZE
    assert sheet.size == (3 * width, 2 * height)
    corners = [(15, 15), (width + 15, 15), (2 * width + 15, 15), (15, height + 15)]
    assert [sheet.getpixel(corner) for corner in corners] == [(50 * i,) * 3 for i in range(4)]
    assert sheet.getpixel((15 + 160, 15)) == sheet.getpixel((15, 15 + 80)) == (255, 255, 255)


def test_a_picture_is_the_figure_without_date_or_version() -> None:
    searched = {"student": made_up("student", [0.9], CURVE)}
    first, second = (drawing.render(plots.lr_search_curve(searched)) for _ in range(2))
    assert first == second
    image = Image.open(io.BytesIO(first))
    assert (image.format, image.mode, image.info) == ("PNG", "RGB", {})


def test_class_names_are_never_read_as_formulas() -> None:
    name = r"$\frac$"
    figure = plots.confusion_matrix("student", torch.eye(2), torch.arange(2), (name, "b"), is_first=True, is_last=True)
    drawing.render(figure)
    assert name in texts(figure)


def test_only_the_figures_import_matplotlib_and_only_when_they_are_drawn() -> None:
    """Read off the sources: to ask a new process takes as long as importing torch."""
    drawn = {"coordinates", "curves", "drawing", "heat_map", "pictures", "plots", "trade_off"}
    at_once = re.compile(rf"^(?:import|from) .*\b(?:matplotlib|{'|'.join(sorted(drawn))})\b", re.MULTILINE)
    sources = {path.stem: path.read_text(encoding="utf-8") for path in Path(distill_run.__file__).parent.rglob("*.py")}
    assert {name for name, text in sources.items() if at_once.search(text)} == drawn
    assert not any("matplotlib.pyplot" in text or "import pyplot" in text for text in sources.values())


def test_outlines_of_numbers_have_their_middle_at_the_cell_and_the_height_of_the_font() -> None:
    box, larger = plots.outline("10", 8.0).get_extents(), plots.outline("10", 16.0).get_extents()
    assert (box.x0 + box.x1, box.y0 + box.y1) == pytest.approx((0, 0), abs=1e-9)
    assert larger.height == pytest.approx(2 * box.height, rel=0.01)
    assert box.height == pytest.approx(8 * 0.73, rel=0.1)  # DejaVu's digits, in points


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (64, 41)])
def test_a_png_holds_the_pixels(size: tuple[int, int]) -> None:
    pixels = torch.randint(256, (*size[::-1], 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    png = png_of(Image.fromarray(pixels.numpy()))
    shown = Image.open(io.BytesIO(png))
    shown.load()
    assert (shown.format, shown.mode, shown.size) == ("PNG", "RGB", size)
    assert shown.tobytes() == pixels.numpy().tobytes()


def test_pictures_stand_side_by_side() -> None:
    red, blue = Image.new("RGB", (2, 3), "red"), Image.new("RGB", (1, 3), "blue")
    whole = drawing.side_by_side([red, blue])
    assert whole.size == (3, 3)
    assert [whole.getpixel((x, 2)) for x in range(3)] == [(255, 0, 0), (255, 0, 0), (0, 0, 255)]
