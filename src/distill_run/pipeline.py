"""The story of a run: teacher -> baseline -> distilled student -> report."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from distill_run.config.schema import Settings
from distill_run.console.console import Console
from distill_run.data.opening import Feeds
from distill_run.deploy.student_export import add_card, export_student
from distill_run.engine.interrupt import StopRequest
from distill_run.engine.launch import found_processes, started
from distill_run.errors import Interrupted, UserError
from distill_run.files import RunFiles, told_of_no_room
from distill_run.out_of_memory import told_of_no_memory
from distill_run.own_code import naming_own_code
from distill_run.processes import Processes
from distill_run.record.command import command_of
from distill_run.record.console_watcher import ConsoleWatcher
from distill_run.record.run_folder import check_unused, choose_folder, completed_report
from distill_run.record.run_record import RunRecord
from distill_run.report.pages import write_pages
from distill_run.report.preview import draw_views
from distill_run.report.results import tell_results
from distill_run.report.run_report import RunReport, write_report
from distill_run.report.summary import Findings, summarise
from distill_run.stages.health import Health
from distill_run.stages.inference import with_speeds
from distill_run.stages.lineup import Lineup, Pair, make_lineup, obtain_teacher, search_rates
from distill_run.stages.prepare import builder_of, open_workshop
from distill_run.stages.rehearse import rehearse
from distill_run.stages.stories import finish
from distill_run.stages.student import obtain_assistants, want_student
from distill_run.stages.trained import Outcome, Repeat
from distill_run.stages.wanted import Story, Wanted
from distill_run.stages.watcher import RunFacts, Watcher, Watchers, build_watchers
from distill_run.stages.workshop import Workshop
from distill_run.stretches import Within


def run(
    settings: Settings,
    run_dir: str | Path | None = None,
    *,
    command: str = "",
    console: Console | None = None,
    watchers: Sequence[Watcher] = (),
    stop: StopRequest | None = None,
    feeds: Feeds | None = None,
) -> RunReport:
    """Train or load the teacher, train the student alone, distil it, test all three and write the report.

    Where `settings.resume` is set, the run in `run_dir` goes on, unless it is completed; otherwise there must be none.
    Without a `run_dir` it is the folder to resume, or a new one, outputs/runs/DATE/TIME. `command` is what a person
    types to repeat it, if that is not the command that the settings come from; `console` is where it is told, if not on
    stdout; `watchers` are told as well. `stop` may be asked to end the run, `feeds` keeps the images for the next run
    of this process. Raises UserError for what the user can mend, before anything is written where that is possible;
    Interrupted when asked to stop, with all saved for a resume.
    """
    with stop or StopRequest() as stop:
        return finish(story_of(settings, run_dir, stop, command, console, watchers, feeds))


def story_of(
    settings: Settings,
    run_dir: str | Path | None,
    stop: StopRequest,
    command: str = "",
    console: Console | None = None,
    watchers: Sequence[Watcher] = (),
    feeds: Feeds | None = None,
    within: Within = nullcontext,
) -> Story[RunReport]:
    """What happens in a run: see `run`. It pauses where baselines or students are to be trained.

    What is done for these trainings is done `within` such a block.
    """
    run_dir = choose_folder(settings) if run_dir is None else Path(run_dir)
    console = console or Console()
    found = found_processes()
    if not found.is_first:
        return follow_found(found)
    if settings.resume and (completed := completed_report(RunFiles(run_dir), settings, console)):
        found.from_first(lambda: None)
        return found.from_first(lambda: completed)
    check_unused(RunFiles(run_dir), settings)
    own_code = Path(settings.code_dir) if settings.code_dir else None
    rehearse(settings)
    record = RunRecord(run_dir)
    own = build_watchers(settings.told, builder_of(settings))
    watcher = Watchers([record, ConsoleWatcher(console, run_dir), *own, *watchers])
    # A run that goes on keeps the command that it was started with.
    command = command_of(run_dir) if settings.resume else command or settings.command
    with _explained(own_code), told_of_no_room("hydra.run.dir", run_dir), ExitStack() as group:
        if found.size > 1:
            settings = replace(settings, device=replace(settings.device, num_processes=found.size))
        processes = group.enter_context(started(found, settings.device, follow))
        processes.from_first(lambda: Beginning(settings, run_dir))
        workshop, settings = open_workshop(
            settings, run_dir, record.files.last, command, watcher, stop, feeds or Feeds(), processes
        )
        health = Health(workshop.feed, watcher.warned)
        workshop = replace(workshop, watcher=Watchers([watcher, health]))
        lineup = make_lineup(settings, workshop)
        facts = RunFacts(run_dir, settings, workshop.store.environment, watcher.warned)
        with _told(watcher, facts, stop), _explained(own_code):
            draw_views(workshop.feed, lineup.student.training.views, record.files.views)
            outcome = yield from _train_all(lineup, workshop, within)
            group.close()  # the rest is for one process
            report = _conclude(outcome, settings, workshop, record, health, command, console)
    return found.from_first(lambda: report)


def _conclude(
    outcome: Outcome,
    settings: Settings,
    workshop: Workshop,
    record: RunRecord,
    health: Health,
    command: str,
    console: Console,
) -> RunReport:
    """Measure what was trained, write all that people and programs are given of it, and tell it."""
    watcher = workshop.watcher
    if settings.measure_speed:
        outcome = with_speeds(outcome, workshop.feed.shape, workshop.device.torch_device, watcher)
    exports = export_student(record.files, settings, workshop, command, watcher)
    report = summarise(settings, workshop.feed, outcome, record.warnings, health.failures, record.files.run_dir)
    report = replace(report, exports=tuple(exports))
    write_report(report)
    write_pages(Findings(report, outcome.networks, workshop.feed, settings, record.config, record.environment))
    add_card(record.files)
    tell_results(console, report, settings, command, record.warnings)
    return report


class Beginning(NamedTuple):
    """What the first of several processes tells the others of a run that begins: its complete settings, its folder."""

    settings: Settings
    run_dir: Path


def follow_found(found: Processes) -> RunReport:
    """Do the part in a run of a process of torchrun that is not the first; returns the report that the first wrote."""
    follow(found)
    report: RunReport | None = found.from_first(lambda: None)
    assert report is not None
    return report


def follow(processes: Processes) -> None:
    """Do the part in a run of a process that is not the first: train with it, and write nothing."""
    beginning: Beginning | None = processes.from_first(lambda: None)
    if beginning is None:  # the run is completed already
        return
    settings, run_dir = beginning
    own_code = Path(settings.code_dir) if settings.code_dir else None
    with StopRequest(only_notes=True) as stop, _explained(own_code):
        workshop, settings = open_workshop(
            settings, run_dir, RunFiles(run_dir).last, "", Watchers([]), stop, Feeds(), processes
        )
        finish(_train_all(make_lineup(settings, workshop), workshop, nullcontext))


@contextmanager
def _explained(own_code: Path | None) -> Iterator[None]:
    """Turn mistakes in the user's own code, and lack of memory where nothing said more of it, into UserErrors."""
    remedy = "choose smaller networks or a smaller dataset.image_size; or keep fewer images: dataset.memory_gigabytes=1"
    with naming_own_code(own_code), told_of_no_memory("this run", remedy):
        yield


def _train_all(lineup: Lineup, workshop: Workshop, within: Within) -> Story[Outcome]:
    """The teacher, the assistants, then baseline and student of each repeat."""
    teacher = obtain_teacher(lineup, workshop)
    lineup = search_rates(lineup, workshop)
    assistants = obtain_assistants(lineup.assistants, teacher, workshop)
    guide = [teacher, *assistants][-1]
    repeats = []
    for pairs in _at_once(lineup.pairs, workshop):
        alone = [Wanted(baseline, workshop, "baseline", within) for baseline, _ in pairs if baseline is not None]
        baselines = (yield alone) if alone else [None] * len(pairs)
        students = yield [want_student(prepared, guide, workshop, within) for _, prepared in pairs]
        seeds = [prepared.training.seed for _, prepared in pairs]
        repeats += [Repeat(*each) for each in zip(seeds, baselines, students, strict=True)]
    return Outcome(teacher, assistants, repeats)


def _at_once(pairs: list[Pair], workshop: Workshop) -> list[list[Pair]]:
    """The repeats that train together: all on a GPU, which one small network does not fill, if it is the only one.

    On a CPU it is one after the other. Their orders of the samples differ, so that they have no batch in common: a step
    of each in turn takes as long as all steps of one after those of another.
    """
    has_room = workshop.device.settings.kind == "cuda" and workshop.processes.size == 1
    return [pairs] if has_room else [[pair] for pair in pairs]


@contextmanager
def _told(watcher: Watcher, facts: RunFacts, stop: StopRequest) -> Iterator[None]:
    """Tell the watchers when the run begins, and when it ends, with or without an error.

    A run that was asked to stop is interrupted, whatever its processes say that have received the same signal.
    """
    try:
        watcher.run_begun(facts)
        yield
    except KeyboardInterrupt as interruption:
        watcher.run_ended(interruption)
        raise Interrupted(*interruption.args) from interruption
    except BaseException as error:
        if stop.requested and isinstance(error, UserError):
            watcher.run_ended(stop.error)
            raise stop.error from error
        watcher.run_ended(error)
        raise
    watcher.run_ended(None)
