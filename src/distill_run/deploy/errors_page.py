"""The page of the images on which the student is wrong and the teacher right."""

import heapq
from pathlib import Path

from distill_run.deploy.predictions import Prediction, Tally
from distill_run.report.samples import Decision, Sample
from distill_run.report.typesetting import Head, Tile, write_page
from distill_run.units import counted, percent

MOST_SHOWN = 60  # mistakes; the rest is counted


class Mistakes:
    """The images on which the student is wrong and the teacher right: how many, and the most confident of them.

    `reversed` counts the images on which it is the other way round.
    """

    def __init__(self) -> None:
        self.count = 0
        self.reversed = 0
        self._kept: list[tuple[float, int, Sample]] = []  # a heap: the least confident one comes first

    def add(self, prediction: Prediction) -> None:
        """Look at one more image."""
        if prediction.target is None or prediction.problem:
            return
        student, teacher = prediction.is_right("student"), prediction.is_right("teacher")
        self.reversed += student and not teacher
        if student or not teacher:
            return
        self.count += 1
        confidence = prediction.answers["student"][0].probability
        if len(self._kept) < MOST_SHOWN:
            heapq.heappush(self._kept, (confidence, -self.count, _sample(prediction, self.count)))
        elif confidence > self._kept[0][0]:
            heapq.heapreplace(self._kept, (confidence, -self.count, _sample(prediction, self.count)))

    @property
    def samples(self) -> list[Sample]:
        """The mistakes to show, the most confident one first."""
        return [sample for *_, sample in sorted(self._kept, reverse=True)]


def write_errors_page(path: Path, mistakes: Mistakes, tally: Tally, student: str, folders: str) -> None:
    """Write the page, one file that needs no other, whole or not at all.

    `student` is what was tested, `folders` are where its images lie; empty for the test split of its run.
    """
    samples = mistakes.samples
    share = f" ({percent(tally.share(mistakes.count))})" if tally.known else ""
    head = Head(
        title=f"Mistakes of {student}",
        conclusion=f"The student is wrong and the teacher right on {mistakes.count:,} of "
        f"{counted(tally.known, 'image')}{share}.",
        labels=[folders or "the test split of the run"],
        warnings=[f"{counted(tally.failed, 'file')} could not be read"] if tally.failed else [],
        tiles=[
            Tile("Student right", percent(tally.share(tally.right["student"])), f"of {counted(tally.known, 'image')}"),
            Tile("Teacher right", percent(tally.share(tally.right["teacher"])), "of the same images"),
            Tile("Only the teacher right", f"{mistakes.count:,}", f"this page shows {counted(len(samples), 'image')}"),
            Tile("Only the student right", f"{mistakes.reversed:,}", "not shown"),
        ],
        answers=[],
    )
    content = {"samples": samples, "num_mistakes": mistakes.count, "prefix": "" if folders else "test image "}
    write_page(path, "errors.html", head, content)


def _sample(prediction: Prediction, number: int) -> Sample:
    """A mistake to show, with an image of its own."""
    assert prediction.image is not None
    assert prediction.target is not None
    decisions = tuple(
        Decision(stage, answers[0].name, answers[0].probability, prediction.is_right(stage))
        for stage, answers in prediction.answers.items()
    )
    image = (prediction.image * 255).round().byte().cpu()
    return Sample(number, prediction.name, image, prediction.target, "", decisions)
