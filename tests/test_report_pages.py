import base64
import csv
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

import distill_run
from distill_run import checkpoint
from distill_run.build import OWN_PACKAGES
from distill_run.config.schema import Settings
from distill_run.config.settings import compose_config
from distill_run.console.console import Console
from distill_run.data.feed import Feed, MemoryFeed
from distill_run.data.source import ImageShape, Split
from distill_run.data.splits import Dataset
from distill_run.data.views import ViewChoice
from distill_run.engine.evaluate import measure
from distill_run.files import RunFiles
from distill_run.models.mlp import MLP
from distill_run.models.network import Network
from distill_run.report import facts
from distill_run.report.answers import answers
from distill_run.report.chance import Paired, compare, counts, difference_interval, two_sided, wilson_interval
from distill_run.report.classes import changed_classes, class_reports, class_rows
from distill_run.report.figures import Agreement, AgreementByTeacher, ClassReport, ClassScores, Difference
from distill_run.report.pages import write_pages
from distill_run.report.pictures import draw_samples
from distill_run.report.plain_words import in_plain_words
from distill_run.report.preview import draw_views
from distill_run.report.results import tell_results
from distill_run.report.run_report import RunReport
from distill_run.report.samples import choose, disagreements, effects, pick_samples
from distill_run.report.summary import Findings, summarise
from distill_run.report.typesetting import markdown_code, markdown_text
from distill_run.stages.trained import Cost, Measured, Origin, Outcome, Repeat, Trained
from distill_run.units import NONE, change, duration, quantity
from helpers import Page

CLASSES = ("<b>x</b>", "a|b", r"$\frac$", "猫")
SHAPE = ImageShape(3, (4, 4), len(CLASSES))
CONFIG = "teacher_checkpoint: /models/<t>_big.pt\ncode_dir: null\n"
COMMAND = 'distill-run "dataset.root=/a b/<c>" mode=soft'
SEEDS = {"teacher": 1, "baseline": 2, "student": 3}
SKILLS = {"teacher": 5.0, "baseline": 2.0, "student": 3.0}


def made_up_split(size: int, seed: int) -> Split:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (size, 3, 4, 4), dtype=torch.uint8, generator=generator)
    return Split(images, torch.randint(len(CLASSES), (size,), generator=generator))


def made_up_logits(targets: Tensor, skill: float, seed: int) -> Tensor:
    noise = torch.randn(len(targets), len(CLASSES), generator=torch.Generator().manual_seed(seed))
    return noise + skill * torch.nn.functional.one_hot(targets, len(CLASSES))


def made_up_network(stage: str) -> Network:
    hidden = [16] if stage == "teacher" else [4]
    with torch.random.fork_rng():
        torch.manual_seed(SEEDS[stage])
        network = MLP(in_channels=3, image_size=(4, 4), num_classes=len(CLASSES), hidden=hidden, dropout=0.0)
    return Network(network, [0.5] * 3, [0.25] * 3).eval()


def made_up_training(stage: str, targets: Tensor) -> Trained:
    rows: list[dict[str, Any]] = []
    for epoch, accuracy in enumerate((0.5, 0.8, 0.7), start=1):
        val = {"accuracy": accuracy, "top5_accuracy": 1.0, "nll": 0.5, "ece": 0.1}
        rows.append({"stage": stage, "epoch": epoch, "train": {"loss": 1 / epoch}, "val": val})
    curve: list[dict[str, float | None]] = [{"lr": 0.1, "val_accuracy": 0.7}]
    curve += [{"lr": 1.0, "val_accuracy": None}]
    return Trained(
        stage=stage, name=f"net_{stage}", node={}, network=made_up_network(stage), fingerprint=f"{SEEDS[stage]:x}" * 64,
        selected=Measured(2, rows[1]["val"], made_up_logits(targets, SKILLS[stage], SEEDS[stage])),
        last=Measured(3, rows[2]["val"], made_up_logits(targets, 1.0, SEEDS[stage])),
        origin=Origin.REUSED if stage == "teacher" else Origin.TRAINED, history=tuple(rows),
        cost=Cost(train_seconds=187.0, images_per_second=1234.0, data_share=0.25), learning_rate=0.1,
        lr_search=tuple(curve) if stage != "teacher" else (), guided_by="logit bank" if stage == "student" else None,
        select_by="accuracy",
    )  # fmt: skip


def loaded(teacher: Trained) -> Trained:
    measured = dataclasses.replace(teacher.selected, epoch=None)
    return dataclasses.replace(
        teacher, selected=measured, last=measured, history=(), cost=Cost(), learning_rate=None, origin=Origin.LOADED,
        path=Path("/models/<t>_big.pt"),
    )  # fmt: skip


def make_findings(
    networks: dict[str, Trained], feed: Feed, run_dir: Path, assistants: Sequence[Trained] = ()
) -> Findings:
    settings = SimpleNamespace(
        seed=7,
        names=SimpleNamespace(dataset="made_up", mode="soft"),
        mode={"_target_": "distill_run.objectives.soft.Soft", "temperature": 4.0, "alpha": 0.9},
        training=compose_config([]).training,
        robustness_images=8,
        code_dir=None,
        trusted_packages=list(OWN_PACKAGES),
    )
    warnings = ["watch <out> for a|b"]
    repeat = Repeat(7, networks.get("baseline"), networks["student"])
    outcome = Outcome(networks["teacher"], list(assistants), [repeat])
    report = summarise(cast(Settings, settings), feed, outcome, warnings, [], run_dir)
    draw_views(feed, ViewChoice(0, None, 0.0, 0.0), RunFiles(run_dir).views)
    environment = {"command": COMMAND, "torch": "2.15", "git_dirty": False, "cuda": None}
    return Findings(report, networks, feed, cast(Settings, settings), CONFIG, environment)


def made_up_feed() -> MemoryFeed:
    parts = (made_up_split(40, 0), made_up_split(10, 1), made_up_split(90, 2))
    return MemoryFeed(Dataset(*parts, CLASSES, ("2 files <skipped>",), "0" * 64), {})


def made_up_findings(run_dir: Path) -> Findings:
    """A whole run, without its pages."""
    feed = made_up_feed()
    return make_findings({stage: made_up_training(stage, feed.test.targets) for stage in SEEDS}, feed, run_dir)


@pytest.fixture(scope="module")
def feed() -> MemoryFeed:
    return made_up_feed()


@pytest.fixture(scope="module")
def networks(feed: Feed) -> dict[str, Trained]:
    return {stage: made_up_training(stage, feed.test.targets) for stage in SEEDS}


@pytest.fixture(scope="module")
def findings(networks: dict[str, Trained], feed: Feed, tmp_path_factory: pytest.TempPathFactory) -> Findings:
    """A whole run; its pages are written once for all tests."""
    findings = make_findings(networks, feed, tmp_path_factory.mktemp("run"))
    write_pages(findings)
    return findings


@pytest.fixture(scope="module")
def least(networks: dict[str, Trained], feed: Feed, tmp_path_factory: pytest.TempPathFactory) -> Findings:
    """A teacher from a checkpoint, no baseline and no search: whatever may be null is."""
    student = dataclasses.replace(networks["student"], lr_search=())
    pair = {"teacher": loaded(networks["teacher"]), "student": student}
    findings = make_findings(pair, feed, tmp_path_factory.mktemp("least"))
    write_pages(findings)
    return findings


def html(findings: Findings) -> Page:
    return Page((findings.report.run_dir / "report.html").read_text(encoding="utf-8"))


def markdown(findings: Findings) -> str:
    return (findings.report.run_dir / "report.md").read_text(encoding="utf-8")


def table_widths(findings: Findings) -> list[set[int]]:
    """The number of bars in the rows of each table of report.md."""
    blocks = re.findall(r"(?:^\|.*\n)+", markdown(findings), re.MULTILINE)
    return [{len(re.findall(r"(?<!\\)\|", row)) for row in block.splitlines()} for block in blocks]


def test_the_run_gets_exactly_these_files(findings: Findings, least: Findings) -> None:
    def written(run_dir: Path) -> list[str]:
        return sorted(str(path.relative_to(run_dir)) for path in run_dir.rglob("*") if path.is_file())

    plots = ["confusion", "curves", "lr_search", "reliability", "robustness", "samples", "views"]
    files = ["model_card.md", *(f"plots/{name}.png" for name in plots), "predictions.csv", "report.html", "report.md"]
    assert written(findings.report.run_dir) == files
    assert "plots/lr_search.png" not in written(least.report.run_dir)


def test_html_needs_nothing_from_outside(findings: Findings) -> None:
    page = html(findings)
    sources = [str(value) for _, each in page.elements for key, value in each.items() if key in ("src", "href")]
    links = [source for source in sources if source.startswith("#")]
    assert len(sources) - len(links) == 6 + 12
    assert {link.removeprefix("#") for link in links} <= {section.get("id") for section in page.all("section")}
    assert all(source.startswith("data:image/") for source in sources if source not in links)
    assert not page.all("script")
    assert not page.all("link")
    assert "url(" not in (findings.report.run_dir / "report.html").read_text(encoding="utf-8")


def test_html_embeds_the_very_plots_of_the_folder_and_can_be_heard(findings: Findings) -> None:
    page = html(findings)
    for image in page.all("img")[:6]:
        file = findings.report.run_dir / "plots" / f"{image['class']}.png"
        embedded = str(image["src"]).removeprefix("data:image/png;base64,")
        assert base64.b64decode(embedded) == file.read_bytes()
    assert page.all("html") == [{"lang": "en"}]
    assert all(image["alt"] for image in page.all("img"))
    assert [each["class"] for each in page.all("th") if "class" in each] == list(SEEDS)
    assert len(page.all("h1")) == 1


def test_html_says_the_figures_and_what_users_named(findings: Findings) -> None:
    page, report = html(findings), findings.report
    figures = f"{report.student.last.test.accuracy:.2%}", f"{report.gap_recovered:.0%}"
    agreement = f"{report.fidelity.agreement:.2%}"
    named = "<b>x</b>", COMMAND, "watch <out> for a|b", "2 files <skipped>", "temperature 4.0"
    assert [text for text in (report.conclusion, *figures, agreement, *named) if text not in page.text] == []
    assert "_target_" not in page.text.replace(CONFIG, "")
    assert "x" not in [tag for tag, _ in page.elements]


def test_markdown_images_are_there(findings: Findings) -> None:
    paths = re.findall(r"^!\[[^\]]+\]\(([^)]+)\)$", markdown(findings), re.MULTILINE)
    assert len(paths) == 7
    assert all((findings.report.run_dir / path).read_bytes().startswith(b"\x89PNG") for path in paths)


def test_markdown_tables_have_as_many_cells_in_every_row(findings: Findings) -> None:
    assert table_widths(findings) == [{3}, {5}, {9}, {7}, {8}, {7}, {3}]
    assert r"a\|b" in markdown(findings)
    assert r"\<b\>x\</b\>" in markdown(findings)


def test_the_class_that_the_student_knows_worst_comes_first(findings: Findings) -> None:
    targets = findings.feed.test.targets
    decisions = findings.networks["student"].selected.test_logits.argmax(1)
    recalls = {name: (decisions[targets == index] == index).double().mean() for index, name in enumerate(CLASSES)}
    rows = class_rows(findings.report)
    assert [row[0] for row in rows] == sorted(CLASSES, key=lambda name: recalls[name])
    assert [row[4] for row in rows] == [f"{recalls[row[0]]:.2%}" for row in rows]
    assert sum(int(row[1]) for row in rows) == 90
    page = html(findings)
    assert "All 4 classes" not in page.text
    assert all(f"{recall:.2%}" in page.text for recall in recalls.values())


def test_many_classes_are_folded_away_and_one_without_images_has_no_recall(
    networks: dict[str, Trained], feed: Feed, tmp_path: Path
) -> None:
    findings = make_findings(networks, feed, tmp_path)
    none = ClassScores(None, None, None)
    absent = ClassReport("absent", 0, dict.fromkeys(SEEDS, none))
    report = dataclasses.replace(findings.report, classes=(absent,) * 17 + findings.report.classes)
    write_pages(dataclasses.replace(findings, report=report))
    assert class_rows(report)[-1] == ["absent", "0", NONE, NONE, NONE, NONE, NONE, NONE]
    assert "All 21 classes" in html(findings).text
    assert "10 of 21; `report.json` has all" in markdown(findings)
    assert RunReport.from_json(report.to_dict(), tmp_path) == report


def test_an_assistant_has_a_column_among_the_networks_and_none_among_the_decisions(
    networks: dict[str, Trained], feed: Feed, tmp_path: Path
) -> None:
    findings = make_findings(networks, feed, tmp_path, [networks["baseline"]])
    write_pages(findings)
    assert table_widths(findings) == [{3}, {6}, {9}, {7}, {8}, {7}, {3}]
    assert [stage for stage, _ in findings.report.networks] == ["teacher", "assistant", "baseline", "student"]


def test_markdown_warns_in_a_block_of_its_own(findings: Findings) -> None:
    assert "> [!WARNING]\n> watch \\<out\\> for a\\|b\n" in markdown(findings)


def test_the_code_in_the_report_loads_the_student(findings: Findings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distill_run, "load_network", checkpoint.load_network, raising=False)
    network = findings.networks["student"].network
    assert isinstance(network, Network)
    node = {"_target_": "distill_run.models.mlp.MLP", "hidden": [4], "dropout": 0.0}
    path = findings.report.run_dir / "checkpoints" / "student.pt"
    network.classes, network.image_size = CLASSES, (4, 4)
    checkpoint.save_network(path, network, node, "mlp")
    block = re.search(r"```python\n(.*?)```", markdown(findings), re.DOTALL)
    assert block
    names: dict[str, Any] = {}
    exec(block[1], names)
    torch.testing.assert_close(names["probabilities"], network(names["images"]).softmax(1))


def test_an_own_architecture_is_loaded_with_its_folder(findings: Findings) -> None:
    settings = SimpleNamespace(**{**vars(findings.settings), "code_dir": "C:\\my code"})
    own = dataclasses.replace(findings, settings=cast(Settings, settings))
    assert r'student.pt", code_dir="C:\\my code")' in facts.loading_code(own, "run/student.pt")


def test_answers_come_in_the_order_in_which_people_ask(findings: Findings) -> None:
    found = answers(findings)
    assert [question.split()[0] for question, _ in found] == ["What", "Was", "Last", "Which"]
    assert "exact McNemar test" in found[0][1]
    assert (
        "net_teacher was reused from the store; its fingerprint, a hash of all that it depends on, "
        "begins with 111111111111." in found[1][1]
    )
    assert "80.00% on validation" in found[1][1]
    assert found[1][1].endswith(
        "The student learned from its logits, which were worked out once and kept on disk (the logit bank)."
    )
    assert found[2][1].startswith("Epoch 2 is the best on validation, by accuracy, and")
    assert found[3][1].startswith("checkpoints/student.pt")


def test_absent_figures_are_said_to_be_absent(least: Findings) -> None:
    assert [tile.label for tile in facts.tiles(least.report)] == [
        "Student's accuracy",
        "Compression",
        "Agreement with the teacher",
    ]
    table = dict(facts.table(least.report))
    assert table["Training time"] == ["elsewhere", "3:07"]
    assert table["Selected epoch"] == ["–", "2 of 3"]  # noqa: RUF001 - the dash is meant
    assert table["Training images per second"][0] == "–"  # noqa: RUF001
    assert "there is no baseline" in least.report.conclusion
    assert "was loaded from /models/<t>_big.pt" in answers(least)[0][1]
    trained = dataclasses.replace(least.report.teacher, reused=False, origin="trained")
    fresh = dataclasses.replace(least, report=dataclasses.replace(least.report, teacher=trained))
    assert "was trained in this run" in answers(fresh)[0][1]
    assert "None" not in html(least).text


def test_a_teacher_below_the_baseline_leaves_no_gap(findings: Findings) -> None:
    tile = facts.tiles(dataclasses.replace(findings.report, gap_recovered=None, gap_interval=None))[2]
    assert (tile.label, tile.note) == ("Gap recovered", "the teacher is not clearly above the baseline")


def test_table_shows_both_checkpoints_and_the_interval(findings: Findings) -> None:
    table = dict(facts.table(findings.report))
    targets = findings.feed.test.targets
    student = findings.networks["student"]
    right = round(90 * measure(student.selected.test_logits, targets)["accuracy"])
    low, high = wilson_interval(right, 90)
    assert table["Test accuracy"][2] == f"{right / 90:.2%}"
    assert table["95% interval"][2] == f"{low:.1%} to {high:.1%}"
    assert (
        table["Test accuracy after the last epoch"][2]
        == f"{measure(student.last.test_logits, targets)['accuracy']:.2%}"
    )


def test_without_a_baseline_disagreements_come_first_then_mistakes_then_any() -> None:
    targets = torch.zeros(16, dtype=torch.int64)
    first, second = torch.zeros(16, dtype=torch.int64), torch.zeros(16, dtype=torch.int64)
    first[[5, 9]] = 1  # 5: only the first is wrong; 9: both are, in the same way
    second[[9, 11]] = 1
    logits = {"teacher": decided(first), "student": decided(second)}
    assert disagreements(list(logits.values())).nonzero().flatten().tolist() == [5, 11]
    assert choose(logits, targets) == [5, 11, 9, 0, 1, 2, 3, 4, 6, 7, 8, 10]


def test_images_that_were_made_worse_come_first_then_the_mended_and_classes_take_turns() -> None:
    targets = torch.tensor([0] * 10 + [1] * 10)
    right = targets.clone()
    student, baseline = right.clone(), right.clone()
    student[[0, 1, 2, 15]] = 2  # made worse: three of class 0, one of class 1
    baseline[[4, 12, 13]] = 2  # mended: one of class 0, two of class 1
    logits = {"teacher": decided(right), "baseline": decided(baseline), "student": decided(student)}
    assert effects(logits, targets) == {"made worse": [0, 1, 2, 15], "mended": [4, 12, 13]}
    assert choose(logits, targets) == [0, 15, 1, 2, 4, 12, 13, 3, 10, 5, 11, 6]
    student[:10], baseline[10:] = 2, 2  # ten of each kind: each gets half
    logits = {"teacher": decided(right), "baseline": decided(baseline), "student": decided(student)}
    assert choose(logits, targets) == [0, 1, 2, 3, 5, 6, 10, 11, 12, 13, 14, 16]


def decided(classes: Tensor) -> Tensor:
    """Logits of three classes with these decisions."""
    return torch.nn.functional.one_hot(classes, 3).float()


def test_predictions_have_a_row_for_each_test_image(findings: Findings) -> None:
    file = findings.report.run_dir / "predictions.csv"
    rows = list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))
    assert list(rows[0]) == [
        "image", "target", "teacher", "teacher_confidence", "baseline", "baseline_confidence", "student",
        "student_confidence",
    ]  # fmt: skip
    assert [row["image"] for row in rows] == [str(index) for index in range(90)]
    assert [row["target"] for row in rows] == [CLASSES[target] for target in findings.feed.test.targets.tolist()]
    share = sum(row["student"] == row["target"] for row in rows) / 90
    assert share == pytest.approx(findings.report.student.selected.test.accuracy)
    odds = findings.networks["student"].selected.test_logits[7].double().exp()
    assert float(rows[7]["student_confidence"]) == pytest.approx(float(odds.max() / odds.sum()), abs=1e-4)


def test_images_of_files_are_called_by_their_paths(
    networks: dict[str, Trained], feed: MemoryFeed, tmp_path: Path
) -> None:
    paths = tuple(f"test/a, b/{index}.png" for index in range(90))
    assert isinstance(feed.val, Split)
    assert isinstance(feed.test, Split)
    named = MemoryFeed(Dataset(feed.train, feed.val, dataclasses.replace(feed.test, paths=paths), CLASSES, (), "0"), {})
    findings = make_findings(networks, named, tmp_path)
    write_pages(findings)
    assert '"test/a, b/3.png"' in (tmp_path / "predictions.csv").read_text(encoding="utf-8")
    sample = pick_samples(findings)[0]
    assert sample.name == paths[sample.index]
    assert f"test image {sample.name}" in html(findings).text
    assert sample.name in markdown(findings)


def test_the_caption_counts_what_was_made_worse_and_what_was_mended(findings: Findings) -> None:
    targets = findings.feed.test.targets
    student, baseline = (
        findings.networks[stage].selected.test_logits.argmax(1) == targets for stage in ("student", "baseline")
    )
    worse, mended = int((baseline > student).sum()), int((student > baseline).sum())
    told = f"made {worse} worse (the baseline is right, the student wrong) and mended {mended} (the other way round)"
    assert f"Distillation {told}" in html(findings).text
    control = dataclasses.replace(findings, report=dataclasses.replace(findings.report, guided_by="nothing"))
    assert f"The control {told}" in draw_samples(control, pick_samples(control)).caption


def test_a_control_is_not_called_distillation(findings: Findings) -> None:
    report = dataclasses.replace(findings.report, guided_by="nothing")
    assert facts.title(report) == "net_student learns without a teacher on made_up, as a control"
    assert in_plain_words(report).startswith(
        "This run asked what soft, which needs no teacher, changes for net_student."
    )


def test_samples_hold_what_each_network_said(findings: Findings) -> None:
    sample = pick_samples(findings)[0]
    decision = sample.decisions[2]
    probabilities = findings.networks["student"].selected.test_logits[sample.index].double().softmax(0)
    assert decision.stage == "student"
    assert decision.answer == CLASSES[int(probabilities.argmax())]
    assert decision.confidence == pytest.approx(probabilities.max().item())
    assert decision.is_right == (decision.answer == sample.target)
    image = findings.feed.test.image(sample.index)
    assert sample.picture.getpixel((1, 2)) == tuple(image[:, 2, 1].tolist())


def test_images_without_three_channels_are_shown_in_grey(findings: Findings) -> None:
    for channels in (1, 2, 4):
        image = torch.arange(channels * 4, dtype=torch.uint8).view(channels, 2, 2)
        sample = dataclasses.replace(pick_samples(findings)[0], image=image)
        assert sample.picture.mode == "L"
        assert sample.picture.getpixel((1, 0)) == 1


def test_wilson_interval() -> None:
    expected = {
        (8, 10): (0.4902, 0.9433),
        (10, 10): (0.7225, 1.0),
        (0, 10): (0.0, 0.2775),
        (440, 450): (0.9596, 0.9879),
    }
    for (right, images), interval in expected.items():
        assert wilson_interval(right, images) == pytest.approx(interval, abs=5e-5)


def test_two_sided_p_value() -> None:
    expected = {
        (0, 0): 1.0, (3, 0): 2 / 8, (1, 3): 2 * (1 + 4) / 16, (10, 2): 2 * (1 + 12 + 66) / 4096, (5, 5): 1.0,
        (5000, 5000): 1.0, (20000, 0): 0.0,
    }  # fmt: skip
    for (heads, tails), p_value in expected.items():
        assert two_sided(heads, tails) == two_sided(tails, heads) == pytest.approx(p_value)


def test_mcnemar_counts_only_where_they_differ() -> None:
    student = torch.tensor([1, 1, 1, 1, 0, 0, 1], dtype=torch.bool)
    baseline = torch.tensor([0, 0, 0, 1, 0, 1, 1], dtype=torch.bool)
    assert compare(student, baseline) == Paired(3, 1, 0.625)


def test_the_counts_behind_a_difference() -> None:
    for paired, words in (
        (Paired(0, 0, 1.0), "Student and baseline are right on exactly the same of the 1,450 test images."),
        (Paired(7, 3, 0.34), "Of 1,450 test images, only the student is right on 7, only the baseline on 3 (exact"),
    ):
        assert counts(paired, 1450).startswith(words)


def test_markdown_shows_text_as_it_is_and_code_cannot_be_left_from_within() -> None:
    assert markdown_text("a|b *c* `d`\n<e> $f$ g_h _i_") == r"a\|b \*c\* \`d\` \<e\> \$f\$ g_h \_i\_"
    assert markdown_code("a ``` b\n", "sh") == "````sh\na ``` b\n````"


def test_units() -> None:
    assert [quantity(n) for n in (5, 1234, 1.2e6, 3.4e9, 5e12)] == ["5", "1.23k", "1.2M", "3.4G", "5T"]
    assert [duration(s) for s in (4.12, 187, 7500)] == ["4.1s", "3:07", "2:05:00"]


def test_units_round_before_they_choose_the_unit() -> None:
    assert [quantity(n) for n in (999.4, 999.6, 999_600, 999.6e6)] == ["999", "1k", "1M", "1G"]
    assert [duration(s) for s in (9.94, 9.96, 59.7)] == ["9.9s", "0:10", "1:00"]
    assert [change(d) for d in (0.012, -0.00001, None)] == ["+1.20", "+0.00", NONE]


def test_with_assistants_the_last_of_them_is_named_as_the_students_own_teacher(
    networks: dict[str, Trained], feed: Feed, tmp_path: Path
) -> None:
    assistants = [dataclasses.replace(networks["baseline"], name=name) for name in ("first", "second")]
    findings = make_findings(networks, feed, tmp_path, assistants)
    assert facts.title(findings.report) == "net_student learns from net_teacher through first, then second on made_up"
    assert answers(findings)[1][1].endswith(
        "The student's own teacher is the last assistant, second. "
        "The student learned from its logits, which were worked out once and kept on disk (the logit bank)."
    )


def test_labels_show_the_weights_of_what_is_added_as_they_are(findings: Findings) -> None:
    also = {"hard": {"alpha": 0.9}, "sp": {"weight": 3000}, "soft": {"alpha": 1, "weight": 2.0}, "own": {}}
    report = dataclasses.replace(findings.report, mode={"name": "crd", "also": also})
    assert facts.labels(report) == [
        "mode crd",
        "also hard, alpha 0.9",
        "also sp, weight 3000",
        "also soft, alpha 1, weight 2.0",
        "also own",
        "seed 7",
    ]


def test_the_console_tells_how_to_load_a_student_of_ones_own_packages(
    findings: Findings, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = {"trusted_packages": ["distill_run", "mine"], "code_dir": "my code"}
    settings = cast(Settings, SimpleNamespace(**{**vars(findings.settings), **changed}))
    expected = 'student.pt", code_dir="my code", trusted_packages=["distill_run", "mine"])'
    assert expected in facts.loading_code(dataclasses.replace(findings, settings=settings), "student.pt")
    tell_results(Console(), findings.report, settings, "", [])
    assert expected.replace(" ", "") in "".join(capsys.readouterr().out.split())


def test_a_class_counts_as_changed_only_beyond_chance_among_all_classes(
    networks: dict[str, Trained], feed: Feed
) -> None:
    """The student mends 12 images of the first class and loses 4 of the second: p is 2^-11, then 2^-3, corrected."""
    targets = feed.test.targets
    baseline, student = targets.clone(), targets.clone()
    baseline[(targets == 0).nonzero().flatten()[:12]] = 3
    student[(targets == 1).nonzero().flatten()[:4]] = 3
    changed = {}
    for stage, decisions in {"teacher": targets, "baseline": baseline, "student": student}.items():
        one_hot = torch.nn.functional.one_hot(decisions, len(CLASSES)).float()
        measured = dataclasses.replace(networks[stage].selected, test_logits=one_hot)
        changed[stage] = dataclasses.replace(networks[stage], selected=measured)
    reports = class_reports(changed, feed)
    assert [each.p_value for each in reports] == pytest.approx([4 * 2**-11, 3 * 2**-3, 1, 1])
    for index, (each, mended) in enumerate(zip(reports, (12, -4, 0, 0), strict=True)):
        assert each.change is not None
        where = targets == index
        interval = difference_interval(student[where] == index, baseline[where] == index)
        assert (each.change.mean, each.change.low, each.change.high) == pytest.approx(
            (mended / int(where.sum()), *interval)
        )
        assert (each.change.over, each.change.count) == ("images", each.test_images)
    without = class_reports({stage: changed[stage] for stage in ("teacher", "student")}, feed)
    assert {(each.change, each.p_value) for each in without} == {(None, None)}


def test_changed_classes_are_named(findings: Findings) -> None:
    def told(*changes: tuple[str, float, float]) -> str:
        classes = tuple(
            ClassReport(name, 50, {}, Difference(mean, mean - 0.1, mean + 0.1, "images", 50), p_value)
            for name, mean, p_value in changes
        )
        return changed_classes(dataclasses.replace(findings.report, classes=classes))

    assert told(("a", 0.2, 0.01), ("b", 0.3, 0.04), ("c", -0.2, 0.01), ("d", 0.1, 0.06)) == (
        "Clearly gained: a, b; lost: c."
    )
    assert told(("a", -0.2, 0.01)) == "Clearly lost: a."
    assert told(("a", 0.2, 0.05)) == "No class clearly gained or lost."


def test_mistakes_of_the_teacher_are_counted_apart(findings: Findings, least: Findings) -> None:
    def told(findings: Findings, right: Agreement, wrong: Agreement) -> str:
        found = AgreementByTeacher(right, wrong)
        return facts.copying(dataclasses.replace(findings.report, agreement_by_teacher=found))

    both = told(
        findings,
        Agreement(88, {"baseline": 0.75, "student": 0.875}),
        Agreement(2, {"baseline": 0.0, "student": 0.5}),
    )
    assert both.startswith(
        "Where the teacher is right (88 test images), the student decides as it does on 87.50% (the baseline on "
        "75.00%). Where it is wrong (2 test images), the student makes the very same mistake on 50.00% (the baseline "
        "on 0.00%). The baseline has not seen the teacher: "
    )
    assert told(least, Agreement(90, {"student": 0.5}), Agreement(0, {})) == (
        "Where the teacher is right (90 test images), the student decides as it does on 50.00%."
    )
