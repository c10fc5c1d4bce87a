"""Code of the user's own, a .py and a .yaml in a folder, beyond what the README shows."""

import copy
import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from conftest import TINY
from distill_run.build import Builder
from distill_run.config.settings import compose_config
from distill_run.data.opening import Feeds
from distill_run.data.source import ImageShape
from distill_run.models.network import build_network
from distill_run.pipeline import run
from distill_run.record.status import read_status
from distill_run.stages.assembly import Prepared, TeacherShape
from distill_run.stages.rehearse import rehearse
from distill_run.stages.training import Architecture
from distill_run.stages.trial import try_step
from helpers import message_of, open_store
from workshops import Opened, open_run

PAIR = [override for override in TINY if not override.startswith("student")]


def write(folder: Path, group: str, name: str, code: str, yaml: str = "") -> Path:
    (folder / group).mkdir(parents=True, exist_ok=True)
    (folder / group / f"{name}.yaml").write_text(f"_target_: {name}.Own\n{yaml}")
    (folder / f"{name}.py").write_text(code)
    return folder


def test_an_objective_that_compares_features(tmp_path: Path) -> None:
    code = (
        "from torch import nn\n"
        "from distill_run.objectives.base import FeatureObjective\n"
        "class Own(FeatureObjective):\n"
        "    def fit_to(self, pair):\n"
        "        self.layer = nn.Linear(pair.student[0][0], pair.teacher[0][0])\n"
        "    def distillation(self, batch, student, teacher):\n"
        "        ((ours, theirs),) = self.features(student, teacher)\n"
        "        return (self.layer(ours) - theirs).square().mean()\n"
    )
    folder = write(
        tmp_path / "mine",
        "mode",
        "own_features",
        code,
        "weight: 2.0\nstudent_points: [pooled]\nteacher_points: [pooled]\n",
    )
    overrides = [*PAIR, "student=cnn_tiny", "mode=own_features", f"store_dir={tmp_path / 'store'}"]
    report = run(compose_config(overrides, folder), tmp_path / "run")
    assert report.guided_by == "live teacher"
    assert report.student.selected.val != report.baseline.selected.val  # type: ignore[union-attr]


def test_a_watcher_hears_the_whole_story(tmp_path: Path) -> None:
    """Of a run that trains everything, and of one in which only the student is not reused."""
    code = (
        "from pathlib import Path\n"
        "from distill_run.stages.watcher import Watcher\n"
        "class Own(Watcher):\n"
        "    def __init__(self, *, path):\n"
        "        self.path, self.steps = Path(path), 0\n"
        "    def say(self, *words):\n"
        "        with self.path.open('a') as file:\n"
        "            file.write(' '.join(map(str, words)) + chr(10))\n"
        "    def run_begun(self, run): self.say('begun', run.settings.names.mode, run.run_dir.name)\n"
        "    def stage_begun(self, stage): self.say('stage', stage.name, stage.num_epochs, stage.num_steps)\n"
        "    def stepped(self, epoch, step, num_images, loss): self.steps += 1\n"
        "    def epoch_ended(self, row): self.say('epoch', row['stage'], row['epoch'], 'after', self.steps)\n"
        "    def stage_ended(self, trained): self.say('ended', trained.stage, trained.origin.name)\n"
        "    def run_ended(self, error): self.say('over', error)\n"
    )
    folder = write(tmp_path / "mine", "watcher", "own_watcher", code, f"path: {tmp_path / 'told.txt'}\n")
    overrides = [*TINY, "watchers=own_watcher", "training.teacher.epochs=1", "training.student.epochs=1"]
    config = compose_config([*overrides, f"store_dir={tmp_path / 'store'}"], folder)
    run(config, tmp_path / "first")
    run(config, tmp_path / "second")
    assert (tmp_path / "told.txt").read_text().splitlines() == [
        *("begun soft first", "stage teacher 1 36", "epoch teacher 1 after 36", "ended teacher TRAINED"),
        *("stage baseline 1 36", "epoch baseline 1 after 72", "ended baseline TRAINED"),
        *("stage student 1 36", "epoch student 1 after 108", "ended student TRAINED", "over None"),
        *("begun soft second", "ended teacher REUSED", "ended baseline REUSED"),
        *("stage student 1 36", "epoch student 1 after 36", "ended student TRAINED", "over None"),
    ]


def test_a_model_and_a_dataset_of_another_class_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "model", "no_model", "class Own:\n    def __init__(self, **_):\n        pass\n")
    write(tmp_path, "source", "no_source", "def Own():\n    return ([], [])\n")
    builder, shape = Builder(code_dir=tmp_path), ImageShape(1, (8, 8), 3)
    assert message_of(build_network, {"_target_": "no_model.Own"}, "student", shape, [0.5], [0.5], 0, builder) == (
        "student._target_=no_model.Own gives no Module\n  derive the class from torch.nn.Module"
    )
    dataset = dataclasses.replace(compose_config(TINY).dataset, source={"_target_": "no_source.Own"})
    assert message_of(Feeds().open, dataset, builder, torch.device("cpu"), open_store(tmp_path)) == (
        "dataset.source._target_=no_source.Own gives no Source\n  return a distill_run.data.source.Source"
    )


def test_what_is_no_watcher_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "mine", "watcher", "no_watcher", "class Own:\n    pass\n")
    config = compose_config([*TINY, "watchers=no_watcher", f"store_dir={tmp_path / 'store'}"], folder)
    assert message_of(rehearse, config) == (
        "watchers.no_watcher._target_=no_watcher.Own is not a watcher\n"
        "  derive the class from distill_run.stages.watcher.Watcher"
    )


OBJECTIVE = (
    "from distill_run.objectives.base import LogitObjective\n"
    "class Own(LogitObjective):\n"
    "    def distillation(self, batch, student, teacher):\n"
    "        return {value}\n"
)
MODEL = (
    "from torch import nn\n"
    "class Own(nn.Module):\n"
    "    def __init__(self, *, in_channels, image_size, num_classes):\n"
    "        super().__init__()\n"
    "        self.layer = nn.Linear({inputs}, num_classes)\n"
    "    def forward(self, images):\n"
    "        return self.layer({images})\n"
)
PIXELS = "image_size[0] * image_size[1] * in_channels"
AUGMENTATION = (
    "from distill_run.data.augment import Augmentation\n"
    "class Own(Augmentation):\n"
    "    def __call__(self, images, draw):\n"
    "        return {value}\n"
)
WHOLE = "\n  mend that line; HYDRA_FULL_ERROR=1 shows how it was reached"


@pytest.mark.parametrize(
    ("group", "code", "told"),
    [
        (
            "mode",
            OBJECTIVE.format(value="student.logit.mean()"),
            f"{{file}}, line 4: AttributeError: 'Outputs' object has no attribute 'logit'{WHOLE}",
        ),
        (
            "mode",
            OBJECTIVE.format(value="(student.logits - teacher.logits).square()"),
            "student, mode=own_thing: distillation has the shape (2, 10) for two images\n"
            "  let `distillation` return a scalar, as .mean() does",
        ),
        (
            "mode",
            OBJECTIVE.format(value="student.logits.sin().mul_(2).mean() + student.logits.exp().mul_(2).mean()"),
            "student, mode=own_thing: the loss has no gradients: one of the variables needed for gradient computation "
            "has been modified by an inplace operation: ",
        ),
        (
            "model",
            MODEL.format(inputs=PIXELS, images="images.flaten(1)"),
            f"{{file}}, line 7: AttributeError: 'Tensor' object has no attribute 'flaten'{WHOLE}",
        ),
        (
            "model",
            MODEL.format(inputs=5, images="images.flatten(1)"),
            "student cannot take images of (1, 8, 8): mat1 and mat2 shapes cannot be multiplied (1x64 and 5x10) "
            "({file}, line 7)\n",
        ),
        (
            "model",
            MODEL.format(inputs="None", images="images.flatten(1)"),
            "{file}, line 5: TypeError: ",
        ),
        ("model", "from torch import nn\nclass Own(nn.Modul):\n    pass\n", "{file}, line 2: AttributeError: "),
        ("model", "class Own\n", f"{{file}}, line 1: SyntaxError: expected ':' (own_thing.py, line 1){WHOLE}"),
        (
            "augmentation",
            AUGMENTATION.format(value="images + draw.normal()"),
            f"{{file}}, line 4: AttributeError: 'Draws' object has no attribute 'normal'{WHOLE}",
        ),
    ],
)
def test_a_mistake_in_own_code_is_told_with_its_line_before_anything_is_trained(
    group: str, code: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "own_thing", raising=False)  # of the test before
    folder = write(tmp_path / "mine", group, "own_thing", code)
    choice = {"mode": "mode", "model": "student", "augmentation": "augment"}[group]
    overrides = [*(PAIR if group == "model" else TINY), f"{choice}=own_thing", f"store_dir={tmp_path / 'store'}"]
    text = message_of(run, compose_config(overrides, folder), tmp_path / "run")
    assert text.startswith(told.format(file=folder / "own_thing.py"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]  # no run, no store


RETURNS = (
    "from collections import namedtuple\n"
    "import torch\n"
    "from torch import nn\n"
    "Pair = namedtuple('Pair', 'logits hidden')\n"
    "class Own(nn.Module):\n"
    "    def __init__(self, *, in_channels, image_size, num_classes):\n"
    "        super().__init__()\n"
    "        self.layer = nn.Linear(image_size[0] * image_size[1] * in_channels, num_classes)\n"
    "    def forward(self, images):\n"
    "        logits = self.layer(images.flatten(1))\n"
    "        return {value}\n"
)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    return open_run(tmp_path_factory.mktemp("opened"), TINY)


def own_student(opened: Opened, value: str, folder: Path, change: str = "") -> Prepared:
    """A student whose forward returns `value`, built and tried as before a run."""
    code = RETURNS.format(value=value).replace("num_classes)\n    def", f"num_classes)\n        {change}\n    def")
    write(folder, "model", f"own_{folder.name}", code)
    architecture = Architecture("student", "own", {"_target_": f"own_{folder.name}.Own"})
    training = dataclasses.replace(opened.lineup.student.training.alone("student"), architecture=architecture)
    assembler = dataclasses.replace(opened.workshop.assembler, builder=Builder(code_dir=folder))
    prepared = Prepared(training, assembler.assemble(training))
    try_step(prepared, None, opened.workshop.feed)
    return prepared


@pytest.mark.parametrize(
    "value",
    ["{'logits': logits, 'aux': logits}", "Pair(logits, images)", "logits if not self.training else Pair(logits, 0)",
     "logits.double()", "self.layer(images.mul_(2).div_(2).flatten(1))"],
)  # fmt: skip
def test_the_logits_are_taken_from_what_a_forward_returns_where_they_have_that_name(
    value: str, opened: Opened, tmp_path: Path
) -> None:
    """Images that a network changes in place are its own copy."""
    network = own_student(opened, value, tmp_path).assembly.network
    images = next(iter(opened.workshop.feed.val.chunks(5)))
    before = images.clone()
    layer = network.architecture.layer
    assert isinstance(layer, torch.nn.Linear)
    for mode in (True, False):
        expected = layer(((before - network.mean) / network.std).flatten(1))
        torch.testing.assert_close(network.train(mode)(images).float(), expected)
    assert torch.equal(images, before)


RETURN_LOGITS = (
    "\n  let it return one tensor of shape (N, K), K for the classes; or a dictionary that has it as `logits`"
)
SHAPE = "\n  its forward must return logits of shape (N, 10)"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("(logits, logits)", f"the forward of Own returns a tuple, not logits{RETURN_LOGITS}"),
        ("[logits]", f"the forward of Own returns a list, not logits{RETURN_LOGITS}"),
        ("{'out': logits}", f"the forward of Own returns a dict, not logits{RETURN_LOGITS}"),
        ("logits.detach().numpy()", f"the forward of Own returns a ndarray, not logits{RETURN_LOGITS}"),
        ("None", f"the forward of Own returns a NoneType, not logits{RETURN_LOGITS}"),
        ("(logits, logits) if self.training else logits",
         f"the forward of Own returns a tuple, not logits{RETURN_LOGITS}"),
        ("logits.argmax(1)", f"student gives outputs of shape (1,) and type torch.int64 for one image{SHAPE}"),
        ("logits[:, 0]", f"student gives outputs of shape (1,) for one image{SHAPE}"),
        ("logits.sum()", f"student gives outputs of shape () for one image{SHAPE}"),
        ("logits[:, :, None, None]", f"student gives outputs of shape (1, 10, 1, 1) for one image{SHAPE}"),
        ("torch.cat([logits, logits], 1)", f"student gives outputs of shape (1, 20) for one image{SHAPE}"),
        ("logits[:1]", f"student gives outputs of shape (1, 10) for 2 images{SHAPE}"),
        ("logits / 0", "the student, for two training images: its logits are not finite\n  lower its optimizer.lr, "),
    ],
)  # fmt: skip
def test_a_forward_that_returns_no_logits_is_told_before_anything_is_trained(
    value: str, told: str, opened: Opened, tmp_path: Path
) -> None:
    assert message_of(own_student, opened, value, tmp_path).startswith(told)


@pytest.mark.parametrize(
    "change", ["self.layer = self.__dict__['_modules'].pop('layer').forward", "self.requires_grad_(False)"]
)
def test_a_network_without_weights_that_can_be_trained_is_refused(change: str, opened: Opened, tmp_path: Path) -> None:
    assert message_of(own_student, opened, "logits", tmp_path, change) == (
        "student has no weights that can be trained\n  give its layers as attributes of its module"
    )


def test_a_mistake_in_a_dataset_is_told_with_its_line(tmp_path: Path) -> None:
    write(tmp_path, "source", "faulty_source", "def Own():\n    return [1, 2][5]\n")
    write(tmp_path, "source", "refusing_source", "def Own():\n    raise ValueError('no images')\n")
    builder = Builder(code_dir=tmp_path)
    assert message_of(builder.build, {"_target_": "faulty_source.Own"}, "dataset.source") == (
        f"{tmp_path / 'faulty_source.py'}, line 2: IndexError: list index out of range{WHOLE}"
    )
    assert message_of(builder.build, {"_target_": "refusing_source.Own"}, "dataset.source") == (
        "dataset.source: no images\n"
        f"  see the arguments of refusing_source.Own; it was raised in {tmp_path / 'refusing_source.py'}, line 2"
    )


def test_a_mistake_that_shows_only_later_is_kept_with_its_line(tmp_path: Path) -> None:
    code = (
        "from distill_run.stages.watcher import Watcher\n"
        "class Own(Watcher):\n"
        "    def epoch_ended(self, row):\n"
        "        row['accuracy']\n"
    )
    folder = write(tmp_path / "mine", "watcher", "late", code)
    overrides = [*TINY, "watchers=late", f"store_dir={tmp_path / 'store'}"]
    expected = f"{folder / 'late.py'}, line 4: KeyError: 'accuracy'{WHOLE}"
    assert message_of(run, compose_config(overrides, folder), tmp_path / "run") == expected
    status = read_status(tmp_path / "run")
    assert status is not None
    assert (status.status, status.error) == ("failed", expected)


def test_the_trial_step_changes_nothing(tmp_path: Path) -> None:
    """Neither weights nor running statistics, nor the random numbers that the training draws."""
    opened = open_run(tmp_path, [*TINY, "mode=crd"])
    prepared, teacher = opened.lineup.student, opened.lineup.teachers[0].assembly
    modules = (prepared.assembly.network, prepared.assembly.loss, teacher.network)
    before = [copy.deepcopy(module.state_dict()) for module in modules]
    drawn = torch.get_rng_state()
    try_step(prepared, TeacherShape(teacher.network, teacher.node), opened.workshop.feed)
    assert torch.equal(torch.get_rng_state(), drawn)
    for module, state in zip(modules, before, strict=True):
        torch.testing.assert_close(module.state_dict(), state, rtol=0, atol=0, equal_nan=True)
        assert all(parameter.grad is None for parameter in module.parameters())
