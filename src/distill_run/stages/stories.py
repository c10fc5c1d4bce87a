"""Telling the stories of runs to their ends: of one, or of several at once, whose students train together."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

from distill_run.engine.together import Take
from distill_run.stages.sharing import SharedTeachers
from distill_run.stages.together import Outcome, obtain_together, usual_way
from distill_run.stages.wanted import Story, Wanted

T = TypeVar("T")

Way = Callable[[Wanted], Take]


def finish(story: Story[T], way: Way = usual_way) -> T:
    """Tell a run's story to its end; raises what the run raises."""
    (end,) = finish_together([story], way)
    if isinstance(end, Exception):
        raise end
    return end


def finish_together(stories: Sequence[Story[T]], way: Way = usual_way) -> list[T | Exception]:
    """Tell the stories of several runs; what each returns or raises, which is no concern of the others.

    Each is told until it waits for trainings. Those that all of them wait for are trained together, and their steps
    taken in the `way`. An interruption ends all stories, and is raised.
    """
    ends: dict[int, T | Exception] = {}
    waiting: dict[int, list[Wanted]] = {}
    teachers = SharedTeachers()

    def go_on(number: int, act: Callable[[], list[Wanted]]) -> None:
        try:
            waiting[number] = [teachers.of(wanted) for wanted in act()]
        except StopIteration as end:
            ends[number] = end.value
        except Exception as error:
            ends[number] = error

    try:
        for number, story in enumerate(stories):
            go_on(number, partial(next, story))
        while waiting:
            now, waiting, teachers = waiting, {}, SharedTeachers()
            outcomes = iter(_obtain([wanted for each in now.values() for wanted in each], way))
            for number, each in now.items():
                go_on(number, _answer(stories[number], [next(outcomes) for _ in each]))
    except KeyboardInterrupt as interruption:
        for story in stories:
            with suppress(KeyboardInterrupt):  # it says in its files that it was interrupted
                story.throw(interruption)
        raise
    return [ends[number] for number in range(len(stories))]


def _obtain(several: Sequence[Wanted], way: Way) -> Sequence[Outcome]:
    try:
        return obtain_together(several, way(several[0]))
    except Exception as error:  # such as a full disk: all of them know as much as one
        return [error] * len(several)


def _answer(story: Story[T], outcomes: Sequence[Outcome]) -> Callable[[], list[Wanted]]:
    """What lets a story go on with what came of its trainings, or with the first error among it."""
    trained = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            return partial(story.throw, outcome)
        trained.append(outcome)
    return partial(story.send, trained)
