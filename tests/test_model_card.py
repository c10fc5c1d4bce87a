"""The model card: metadata that hubs read, what is left to fill in, and limits that the figures show."""

import dataclasses
import re

import yaml

from distill_run.config.settings import compose_config
from distill_run.files import RunFiles
from distill_run.report.figures import ClassReport, ClassScores, Difference
from distill_run.report.model_card import limits, recipe
from distill_run.report.plain_words import sentences
from distill_run.report.run_report import RunReport


def card_of(report: RunReport) -> str:
    return RunFiles(report.run_dir).model_card.read_text(encoding="utf-8")


def test_the_metadata_is_valid_yaml_and_leaves_the_licence_open(tiny_report: RunReport) -> None:
    _, metadata, body = card_of(tiny_report).split("---\n", 2)
    assert yaml.safe_load(metadata) == {
        "library_name": "distill-run",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "knowledge-distillation", "pytorch"],
        "metrics": ["accuracy"],
    }
    assert body.count("TO BE FILLED IN") == 2
    assert re.findall("^## (.*)$", body, re.MULTILINE) == [
        "Intended use", "Licence of the weights", "How to load it", "Data", "Teacher", "Training", "Figures",
        "After temperature scaling", "Accuracy by corruption and severity", "Limits",
    ]  # fmt: skip


def test_the_card_says_what_the_run_was_and_no_folder_of_the_machine(tiny_report: RunReport) -> None:
    card = card_of(tiny_report)
    for words in (
        "# mlp learns from cnn_tiny on digits",
        'network = load_network("student.pt")',
        "Images of 1 channel and 8 by 8 pixels, with values from 0 to 1: the network itself subtracts the mean",
        tiny_report.dataset.content,
        "mode soft, temperature 4.0, alpha 0.9",
        "epochs 2, batch size 32, SGD (lr 0.05, momentum 0.9",
        f"| Test accuracy | {tiny_report.teacher.selected.test.accuracy:.2%} |",
        "One training only: how much depends on its random start is not known.",
    ):
        assert words in card, words
    assert str(tiny_report.run_dir) not in card


def test_limits_name_the_classes_that_are_weak_or_have_few_images(tiny_report: RunReport) -> None:
    def of_class(name: str, test_images: int, recall: float) -> ClassReport:
        return ClassReport(name, test_images, {"student": ClassScores(recall, recall, recall)})

    selected = dataclasses.replace(tiny_report.student.selected.test, accuracy=0.9)
    moment = dataclasses.replace(tiny_report.student.selected, test=selected)
    student = dataclasses.replace(tiny_report.student, selected=moment)
    lost = dataclasses.replace(
        of_class("cat", 100, 0.5), change=Difference(-0.3, -0.4, -0.2, "images", 100), p_value=0.001
    )
    classes = (lost, of_class("dog", 100, 0.88), of_class("rat", 12, 0.8), of_class("ape", 100, 0.99))
    report = dataclasses.replace(tiny_report, student=student, classes=classes, warnings=("watch out",))
    told = limits(report)
    assert "It recognises clearly less of these classes than of all images: cat (50.00%)." in told
    assert "These classes have too few test images to tell how well it knows them: rat (12)." in told
    assert "Beside the same network without a teacher: Clearly lost: cat." in told
    assert told[0].startswith("It was tested on 450 images: other images of the same kind may give an accuracy between")
    assert told[-1] == "watch out"
    bare = limits(dataclasses.replace(report, robustness=None))
    assert "How it bears noise, blur, weak contrast and JPEG compression was not measured." in bare


def test_the_recipe_is_said_by_the_keys_of_the_configuration() -> None:
    student = compose_config(["training.student.mixup=0.2", "training.student.epochs=3"]).training.student
    assert recipe(student).startswith("epochs 3, batch size None, AdamW (lr 0.002, ")
    assert recipe(student).endswith("), mixup 0.2")


def test_plain_words_point_at_sections_and_say_no_more_than_is_known(tiny_report: RunReport) -> None:
    assert tiny_report.in_plain_words == " ".join(sentence.text for sentence in sentences(tiny_report))
    assert tiny_report.in_plain_words.startswith(
        "This run asked whether mlp classifies better when it learns from cnn_tiny as well."
    )
    page = RunFiles(tiny_report.run_dir).report_page.read_text(encoding="utf-8")
    for sentence in sentences(tiny_report):
        assert f'<section id="{sentence.section}">' in page
    gained = plain(outcome_of(tiny_report, 0.02, 0.01, 0.03))
    assert "It gets better: of 1,000 new images" in gained
    assert "another random start of the training may change it further (add repeats=5 to see that)" in gained
    assert "With noise, blur, weak contrast and JPEG compression it still gets " in gained
    assert "It gets worse: of 1,000 new images" in plain(outcome_of(tiny_report, -0.02, -0.03, -0.01))
    doubtful = plain(outcome_of(tiny_report, 0.02, -0.01, 0.05))
    assert "No difference could be shown: " in doubtful
    assert "between -1.00 and +5.00 percentage points, judged by 450 test images" in doubtful
    failed = dataclasses.replace(tiny_report, failures=("the teacher is worse than the student alone",))
    assert "It has no answer, because something went wrong: see the warnings." in plain(failed)
    alone = dataclasses.replace(tiny_report, failures=(), baseline=None, difference=None)
    assert "owes to the teacher is not known" in plain(alone)


def outcome_of(report: RunReport, mean: float, low: float, high: float) -> RunReport:
    return dataclasses.replace(report, failures=(), difference=Difference(mean, low, high, "images", 450))


def plain(report: RunReport) -> str:
    return " ".join(sentence.text for sentence in sentences(report))


def test_confidence_is_judged_against_the_interval_of_the_accuracy(tiny_report: RunReport) -> None:
    accuracy = tiny_report.student.selected.test.accuracy
    for sure, words in (
        (accuracy, "Its confidence is right on average: "),
        (accuracy + 0.2, "It is too sure of itself: "),
        (accuracy - 0.2, "It is less sure than it could be: "),
    ):
        calibration = tiny_report.calibration["student"]
        before = dataclasses.replace(calibration.before, mean=sure)
        changed = {**tiny_report.calibration, "student": dataclasses.replace(calibration, before=before)}
        assert words in plain(dataclasses.replace(tiny_report, calibration=changed))
