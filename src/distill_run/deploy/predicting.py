"""What distill-predict does: it writes rows while they come, or the page of the student's mistakes."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from distill_run.console.console import Console
from distill_run.console.displays import WorkDisplay
from distill_run.data.photo_opening import remark_notes
from distill_run.data.source import ImageSet
from distill_run.deploy.comparison import Comparison
from distill_run.deploy.errors_page import Mistakes, write_errors_page
from distill_run.deploy.image_places import ImagePlace, list_places, require_targets
from distill_run.deploy.photographs import Block, decoder_for, read_blocks, split_blocks
from distill_run.deploy.prediction_tables import FORMATS, Layout
from distill_run.deploy.predictions import Prediction, Tally, predict_blocks
from distill_run.errors import UserError, told_if_interrupted, user_error
from distill_run.files import RunFiles, atomic_path, told_of_no_room
from distill_run.listener import NOBODY, Listener, working
from distill_run.safe_text import ANY_TEXT, write_out
from distill_run.units import counted, shown_path


def write_rows(
    compared: Comparison, images: Sequence[Path], file_format: str, top: int, output: Path | None, console: Console
) -> bool:
    """Write a row for each image in files and folders into the file `output`, or to stdout; whether all could be read.

    The `console` is told the rest.
    """
    student = compared.student.network
    if top > len(student.classes):
        raise user_error(f"--top {top} is more than the {len(student.classes)} classes", "write a smaller number")
    decoder, places = decoder_for(student), list_places(images, student.classes)
    _tell_skipped(places, console)
    layout = Layout(tuple(compared.networks), top, student.classes, any(place.targets for place in places))
    tally, num = Tally(), sum(len(place.images) for place in places)
    # Where rows go to a terminal, they show themselves how far it is.
    listener = NOBODY if output is None and sys.stdout.isatty() else WorkDisplay(console)

    def predicted() -> Iterator[Prediction]:
        blocks = read_blocks(chain.from_iterable(place.photographs() for place in places), decoder)
        for prediction in _counted(compared, blocks, top, tally, num, listener):
            if prediction.problem and file_format == "table":
                console.warn(f"{prediction.name} cannot be read: {prediction.problem}")
            yield prediction

    with _opened(output) as write:
        for text in FORMATS[file_format](predicted(), layout):
            write(text)
    _tell_remarks(tally, console)
    if num > 1:
        _tell(tally, compared, console)
    return tally.failed == 0


def write_mistakes(compared: Comparison, images: Sequence[Path], output: Path | None, console: Console) -> bool:
    """Write the page of the images on which the student is wrong and the teacher right; whether all could be read.

    The images lie in folders by their classes. Where none are given, they are those of the test split of the run.
    """
    run, student, listener = compared.student.run, compared.student.network, WorkDisplay(console)
    page = output or (RunFiles(run.run_dir).errors_page if run else Path("errors.html"))
    if images:
        places = list_places(images, student.classes)
        require_targets(places)
        _tell_skipped(places, console)
        num = sum(len(place.images) for place in places)
        photographs = chain.from_iterable(place.photographs() for place in places)
        blocks = read_blocks(photographs, decoder_for(student))
    else:
        test = _test_split(compared, console, listener)
        num, blocks = len(test), split_blocks(test)
    tally, mistakes = Tally(), Mistakes()
    with told_if_interrupted(f"{page} was not written"), told_of_no_room("--output", page):
        for prediction in _counted(compared, blocks, 1, tally, num, listener):
            if prediction.problem:
                console.warn(f"{prediction.name} cannot be read: {prediction.problem}")
            mistakes.add(prediction)
        write_errors_page(page, mistakes, tally, shown_path(compared.student.path), " ".join(map(str, images)))
    _tell_remarks(tally, console)
    _tell(tally, compared, console)
    console.note(f"{counted(mistakes.count, 'image')} on which only the teacher is right: {shown_path(page)}")
    return tally.failed == 0


def _tell_skipped(places: Sequence[ImagePlace], console: Console) -> None:
    for place in places:
        for note in place.notes:
            console.note(note)


def _test_split(compared: Comparison, console: Console, listener: Listener) -> ImageSet:
    """The test images of the student's run, read again."""
    run = compared.student.run
    remedy = "give a folder with a folder of images for each class"
    if run is None:
        raise user_error(f"{compared.student.path} belongs to no run, so it has no test split", remedy)
    try:
        feed = run.open_feed(compared.device, listener)
    except UserError as error:
        what = f"the images of {run.run_dir} cannot be had: {error.mistakes[0].what}"
        raise user_error(what, f"start from the folder in which the run was started; or {remedy}") from error
    if run.report.dataset.content not in ("", feed.content):
        console.warn("the images have changed since the run")
    return feed.test


def _counted(
    compared: Comparison, blocks: Iterable[Block], top: int, tally: Tally, num: int, listener: Listener
) -> Iterator[Prediction]:
    """The predictions for all blocks, `num` images, which are counted and listened to."""
    with working(listener, counted(num, "image"), num) as advance:
        for prediction in predict_blocks(compared.networks, blocks, top, compared.device):
            tally.add(prediction)
            advance(tally.images)
            yield prediction


def _tell_remarks(tally: Tally, console: Console) -> None:
    for note in remark_notes(tally.remarks, str):
        console.note(note)


def _tell(tally: Tally, compared: Comparison, console: Console) -> None:
    for sentence in tally.sentences(compared.networks):
        console.note(sentence)


@contextmanager
def _opened(path: Path | None) -> Iterator[Callable[[str], object]]:
    """What writes a text into a file, which is written whole or not at all, or to stdout."""
    if path is None:
        with told_if_interrupted("the rows above are those that were written"):
            yield _write_now
        return
    with told_if_interrupted(f"{path} was not written"), told_of_no_room("--output", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            atomic_path(path) as temporary,
            temporary.open("w", encoding="utf-8", errors=ANY_TEXT, newline="") as file,
        ):
            yield file.write


def _write_now(text: str) -> None:
    write_out(text)
    sys.stdout.flush()
