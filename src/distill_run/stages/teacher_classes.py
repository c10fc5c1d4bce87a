"""The key teacher_classes: which outputs of a teacher that was trained on other classes are those of the dataset."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from distill_run.config.schema import Settings
from distill_run.data.imagenet import imagenet_names
from distill_run.errors import UserError, show, user_error
from distill_run.models.class_outputs import Head, choose_outputs, plain_name
from distill_run.tensor_files import some_of

IMAGENET = "imagenet"
MOST_TOLD = 10  # lines
REMEDY = (
    "name its outputs for them: teacher_classes=imagenet, or FILE with a line for each class, as in "
    "cat: tabby, tiger cat"
)
Entries = Sequence[Sequence[str | int]]  # names or indices of the outputs of each class


class ChosenOutputs(NamedTuple):
    """The outputs of each class, None where they are all outputs in their order; and what the user is told of them."""

    outputs: list[list[int]] | None
    lines: list[str]


def check_classes(settings: Settings) -> None:
    """Raise UserError where teacher_classes names a file that is not there, or no teacher that it could be for."""
    wanted = settings.teacher_classes
    if isinstance(wanted, str) and wanted != IMAGENET and not Path(wanted).is_file():
        raise user_error(f"teacher_classes={wanted}: there is no such file", "write imagenet, or the path of a file")
    if wanted is not None and settings.teacher_checkpoint is None and settings.teacher_trains != "nothing":
        raise user_error(
            "teacher_classes is for a teacher that is not trained here, and there is none",
            "leave it out; or write teacher_trains=nothing; or give one, as in teacher_checkpoint=my_weights.pt",
        )


def outputs_for_classes(
    wanted: str | list[Any] | None, head: Head, classes: Sequence[str], teacher: str, remedy: str
) -> ChosenOutputs:
    """The outputs of a head that stand for each class of the dataset, with their lines for the user.

    With null, a head whose outputs have names gives those of the dataset's classes; for the other values of
    teacher_classes see the README. Raises UserError where a class has no output; where nothing was wanted, it names the
    `teacher` and has this `remedy`.
    """
    if wanted is None:
        outputs = _by_own_names(head, classes, teacher, remedy)
    else:
        given = f"teacher_classes={show(wanted)}"
        head, entries = _read(wanted, given, head, classes)
        _check_count(given, len(entries), head, classes)
        outputs = choose_outputs(given, entries, head)
    if outputs is None or outputs == [[place] for place in range(head.size)]:
        return ChosenOutputs(None, [])
    return ChosenOutputs(outputs, _told(outputs, head, classes))


def _read(wanted: str | list[Any], given: str, head: Head, classes: Sequence[str]) -> tuple[Head, Entries]:
    """The head with the names of its outputs, and the entries for the classes, as a value of teacher_classes says."""
    imagenet = imagenet_names()
    if wanted == IMAGENET:
        if head.size != len(imagenet):
            raise user_error(f"{given}, but the teacher has {head.size} outputs", "give a list or a file instead")
        return Head(head.size, imagenet), [[name] for name in classes]
    if head.names is None and head.size == len(imagenet):
        head = Head(head.size, imagenet)
    if isinstance(wanted, list):
        return head, [each if isinstance(each, list) else [each] for each in wanted]
    lines = [line.strip() for line in Path(wanted).read_text(encoding="utf-8").splitlines() if line.strip()]
    if all(":" in line for line in lines):
        lines = _in_order(lines, given, classes)
    elif len(lines) == head.size:
        return Head(head.size, tuple((line,) for line in lines)), [[name] for name in classes]
    names = {name for own in head.names or () for name in own}
    texts = [[each.strip() for each in line.split(",")] for line in lines]
    return head, [[int(each) if each.isdecimal() and each not in names else each for each in own] for own in texts]


def _by_own_names(head: Head, classes: Sequence[str], teacher: str, remedy: str) -> list[list[int]] | None:
    """The outputs that are named as the classes are; None where all are taken in their order.

    As many outputs, of which none has the name of a class at another place, are taken to be in order.
    """
    is_as_many = head.size == len(classes)
    what = f"{teacher} was made for {head.size:,} classes, the dataset has {len(classes)}"
    if head.names is None:
        if not is_as_many:
            raise user_error(what, remedy)
        return None
    if is_as_many:
        what = f"{teacher} has the dataset's classes in another order, and not all of them by one name"
    try:
        return choose_outputs(what, [[name] for name in classes], head)
    except UserError as error:
        found = [head.places(name) for name in classes]
        if is_as_many and all(place in places for place, places in enumerate(found) if places):
            return None  # it is said that their names differ
        raise user_error(error.mistakes[0].what, remedy) from error


def _in_order(lines: Sequence[str], given: str, classes: Sequence[str]) -> list[str]:
    """What stands behind the name and the colon of each class, in the order of the classes."""
    by_class = {}
    for line in lines:
        name, _, entry = line.partition(":")
        by_class[plain_name(name)] = entry
    if absent := [name for name in classes if plain_name(name) not in by_class]:
        raise user_error(f"{given} has no line for {some_of(absent)}", "add it, as in cat: tabby, tiger cat")
    return [by_class[plain_name(name)] for name in classes]


def _check_count(given: str, count: int, head: Head, classes: Sequence[str]) -> None:
    if count != len(classes):
        raise user_error(
            f"{given} has {count} entries, the dataset has {len(classes)} classes and the teacher {head.size} outputs",
            "write one for each class; or a file with the names of all outputs, one a line",
        )


def _told(outputs: Sequence[Sequence[int]], head: Head, classes: Sequence[str]) -> list[str]:
    lines = [
        f"{name} is its output {' + '.join(map(head.told, own))}" for name, own in zip(classes, outputs, strict=True)
    ]
    return lines if len(lines) <= MOST_TOLD else [*lines[: MOST_TOLD - 1], f"and so on, for {len(lines)} classes"]
