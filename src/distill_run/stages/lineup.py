"""The networks of a run, each built and tried before anything is trained: nothing is trained in vain."""

from dataclasses import dataclass, replace
from typing import NamedTuple

from distill_run.config.schema import Settings
from distill_run.models.ensemble import Ensemble
from distill_run.models.network import Network, count_params
from distill_run.models.published import weight_files
from distill_run.stages.assembly import Prepared, TeacherShape
from distill_run.stages.given_teacher import GivenTeacher, GivenTeachers
from distill_run.stages.lr_search import find_learning_rate
from distill_run.stages.plans import Planner, numbered, teacher_files, teacher_weights, untrained_teachers
from distill_run.stages.teacher import measure_teacher, together
from distill_run.stages.trained import Trained
from distill_run.stages.training import DataFacts, Training
from distill_run.stages.trial import try_step
from distill_run.stages.watcher import Watcher
from distill_run.stages.workshop import Workshop
from distill_run.units import quantity, rounded

LARGE_STUDENT = 1_000_000  # parameters


class Pair(NamedTuple):
    """A student, and the same network trained alone, which may be left out."""

    baseline: Prepared | None
    student: Prepared


@dataclass(frozen=True)
class Lineup:
    """Who takes part in a run. `weights` are those of all teachers; the loaded ones come first.

    `pairs` holds the baseline and the student of each repeat.
    """

    loaded: list[GivenTeacher]
    teachers: list[Prepared]
    weights: list[float]
    assistants: list[Prepared]
    pairs: list[Pair]

    @property
    def student(self) -> Prepared:
        """The first student: the others differ in the seed alone."""
        return self.pairs[0].student


def make_lineup(settings: Settings, workshop: Workshop) -> Lineup:
    """Plan the trainings of complete settings, build their networks and losses, and fit each pair.

    Raises UserError where something does not fit.
    """
    planner = Planner(settings, workshop.feed, workshop.builder)
    given = GivenTeachers(settings, workshop.feed, workshop.builder)
    loaded = [
        *(given.load(stage, path) for stage, path in teacher_files(settings)),
        *(given.untrained(stage, architecture) for stage, architecture in untrained_teachers(settings)),
    ]
    loaded = [_on_device(teacher, workshop) for teacher in loaded]
    teachers = [_tried(training, None, workshop) for training in planner.teachers()]
    weights = teacher_weights(settings, len(loaded) + len(teachers))
    guiding = _shape_of(loaded, teachers, weights)
    assistants = []
    for training in planner.assistants():
        assistants.append(_tried(training, guiding, workshop))
        guiding = TeacherShape(assistants[-1].assembly.network, assistants[-1].assembly.node)
    pairs = []
    for number, training in enumerate(planner.students(), start=1):
        alone = training.alone(numbered("baseline", number))
        baseline = _prepare(alone, None, workshop) if settings.baseline else None
        prepare = _tried if number == 1 else _prepare
        pairs.append(Pair(baseline, prepare(training, guiding, workshop)))
    _compare_sizes(pairs[0].student.assembly.network, guiding.network, workshop.watcher)
    return Lineup(loaded, teachers, weights, assistants, pairs)


def search_rates(lineup: Lineup, workshop: Workshop) -> Lineup:
    """The same at the learning rates that the recipes' searches find.

    Each rate is searched with cross-entropy alone, so that one search serves all modes; baselines and students share
    that of the first seed, which keeps the comparison fair.
    """
    baseline = lineup.pairs[0].baseline
    alone = lineup.student.training.alone("baseline") if baseline is None else baseline.training
    found, curve = find_learning_rate(alone, workshop)
    pairs = []
    for baseline, student in lineup.pairs:
        pairs.append(Pair(baseline and baseline.at_rate(found, curve), student.at_rate(found, curve)))
    return replace(
        lineup,
        assistants=[at_found_rate(assistant, workshop) for assistant in lineup.assistants],
        pairs=pairs,
    )


def obtain_teacher(lineup: Lineup, workshop: Workshop) -> Trained:
    """The trained teacher, or several as one."""
    members = [measure_teacher(teacher, workshop) for teacher in lineup.loaded]
    members += workshop.obtain_all("teacher", [at_found_rate(teacher, workshop) for teacher in lineup.teachers])
    for member in members:
        _compare_normalisation(member, lineup.student.training.data, workshop.watcher)
    return members[0] if len(members) == 1 else together(members, lineup.weights, workshop)


def _prepare(training: Training, teacher: TeacherShape | None, workshop: Workshop) -> Prepared:
    assembly = workshop.assembler.assemble(training, teacher)
    device = workshop.device_for(assembly.network)
    top_k = training.top_k if assembly.loss.needs == "logits" else None  # features come from the teacher itself
    return Prepared(replace(training, device=device.settings, top_k=top_k), assembly, notes=device.notes)


def _tried(training: Training, teacher: TeacherShape | None, workshop: Workshop) -> Prepared:
    """The same after one step on two images, and with a word on what was chosen for it."""
    prepared = _prepare(training, teacher, workshop)
    for path in weight_files(training.architecture.node):
        what = "with a new last layer where its classes are others"
        workshop.watcher.noted(f"{training.stage}: training starts from the weights in {path}, {what}")
    if taken := getattr(prepared.assembly.network.architecture, "weights_note", None):
        workshop.watcher.noted(f"{training.stage}: {taken}")
    for note in prepared.notes:
        workshop.watcher.noted(f"{training.stage}: {note}")
    if teacher is None:  # the step says the same in every run
        workshop.feed.kept.get(
            ("tried", prepared.training.fingerprint), lambda: try_step(prepared, None, workshop.feed)
        )
    else:
        try_step(prepared, teacher, workshop.feed)
    return prepared


def _on_device(teacher: GivenTeacher, workshop: Workshop) -> GivenTeacher:
    """The teacher on the device, once it has given logits of an image there."""
    placed = replace(teacher, network=workshop.device.place(teacher.network))
    workshop.assembler.try_network(placed.network, placed.stage)
    return placed


def _shape_of(loaded: list[GivenTeacher], teachers: list[Prepared], weights: list[float]) -> TeacherShape:
    networks = [*(teacher.network for teacher in loaded), *(teacher.assembly.network for teacher in teachers)]
    nodes = [*(teacher.node for teacher in loaded), *(teacher.assembly.node for teacher in teachers)]
    return TeacherShape(networks[0], nodes[0]) if len(networks) == 1 else TeacherShape(Ensemble(networks, weights), {})


def at_found_rate(prepared: Prepared, workshop: Workshop) -> Prepared:
    """The same at the learning rate that its recipe's search finds."""
    training = prepared.training
    found, curve = find_learning_rate(training.alone(training.stage), workshop)
    return prepared.at_rate(found, curve)


def _compare_sizes(student: Network, teacher: Network | Ensemble, watcher: Watcher) -> None:
    """Warn of a student that is large, and larger than its teacher; one layer for all pixels of a photograph is."""
    ours, theirs = count_params(student), count_params(teacher)
    if ours > max(theirs, LARGE_STUDENT):
        watcher.warned(
            f"the student has {quantity(ours)} parameters, the teacher {quantity(theirs)}: "
            "choose a smaller one, as in student=resnet8"
        )


def _compare_normalisation(teacher: Trained, data: DataFacts, watcher: Watcher) -> None:
    """Warn where a teacher sees images in another normalisation than the student."""
    network = teacher.own_network
    own = [rounded(network.mean.flatten().tolist()), rounded(network.std.flatten().tolist())]
    if own != [rounded(data.mean), rounded(data.std)]:
        watcher.warned(f"the {teacher.stage} keeps its own normalisation, which differs from the dataset's")
