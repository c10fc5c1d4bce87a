"""Teachers of other classes, and teachers that nothing trains: whose outputs they give, and what is refused."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor

from distill_run.build import Builder
from distill_run.checkpoint import network_content
from distill_run.config.settings import compose_config
from distill_run.data.imagenet import imagenet_names
from distill_run.data.source import ImageShape
from distill_run.models.class_outputs import ClassOutputs, Head
from distill_run.models.network import Network, build_network
from distill_run.stages.given_teacher import GivenTeachers
from distill_run.stages.rehearse import rehearse
from distill_run.stages.teacher_classes import ChosenOutputs, outputs_for_classes
from distill_run.stages.trained import Origin
from distill_run.stages.training import Architecture
from distill_run.stages.watcher import Watcher
from distill_run.tensor_files import save
from helpers import message_of
from workshops import Opened, open_run

DIGITS = tuple("0123456789")
MLP = {"_target_": "distill_run.models.mlp.MLP", "hidden": [4], "dropout": 0.0}
SMALL = (
    "student=mlp", "student.hidden=[4]", "dataset.image_size=8", "dataset.mean=[0.4]", "dataset.std=[0.3]",
    "device=cpu", "device.precision=fp32",
)  # fmt: skip
ANIMALS = Head(3, (("tabby", "tabby cat"), ("tiger cat",), ("beagle",)))
NAME_THEM = (
    "  write teacher_classes=FILE with a line for each class, as in cat: tabby, tiger cat; names or indices of outputs"
)
REMEDY = (
    "  name its outputs for them: teacher_classes=imagenet, or FILE with a line for each class, as in "
    "cat: tabby, tiger cat"
)


class Told(Watcher):
    """Keeps the notes and the warnings of a run."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def noted(self, text: str) -> None:
        self.notes.append(text)

    def warned(self, text: str) -> None:
        self.warnings.append(text)


def choose(wanted: Any, head: Head, classes: tuple[str, ...]) -> ChosenOutputs:
    return outputs_for_classes(wanted, head, classes, "teacher_checkpoint=x.pt", "remedy")


def test_the_softmax_of_a_class_is_the_sum_of_its_outputs_renormalised() -> None:
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).float() * 3
    chosen = ClassOutputs([[1, 3], [0], [4]])(logits)
    probabilities = logits.double().softmax(1)
    summed = torch.stack([probabilities[:, 1] + probabilities[:, 3], probabilities[:, 0], probabilities[:, 4]], 1)
    expected = summed / summed.sum(1, keepdim=True)
    torch.testing.assert_close(chosen.double().softmax(1), expected, rtol=1e-5, atol=1e-7)
    softened = expected ** (1 / 4)  # what a temperature of 4 makes of that distribution
    torch.testing.assert_close(
        (chosen.double() / 4).softmax(1), softened / softened.sum(1, keepdim=True), rtol=1e-5, atol=1e-7
    )
    assert torch.equal(ClassOutputs([[2], [0]])(logits), logits[:, [2, 0]])


def test_imagenet_has_its_thousand_names() -> None:
    names = imagenet_names()
    assert len(names) == 1000
    assert [each[0] for each in names] == torchvision.models.ResNet18_Weights.DEFAULT.meta["categories"]
    assert names[0] == ("tench", "Tinca tinca", "n01440764")


def test_classes_are_found_by_names_synonyms_and_synsets() -> None:
    head = Head(1000, None)
    chosen = choose("imagenet", head, ("Great_White-Shark", "Tinca tinca", "n01443537", "crane"))
    assert chosen.outputs == [[2], [0], [1], [517]]  # torchvision calls the bird crane bird
    assert chosen.lines[0] == "Great_White-Shark is its output 2 (great white shark)"
    assert message_of(choose, "imagenet", head, ("panda", "cat", "qqq")) == (
        "teacher_classes=imagenet: panda is the name of more than one output: 387 (lesser panda), 388 (giant panda); "
        "no output of the teacher is named cat (nearest: 281 (tabby), 282 (tiger cat), 283 (Persian cat)); "
        "no output of the teacher is named qqq\n"
        "  write one index, as in 387; write teacher_classes=FILE with a line for each class, as in "
        "cat: tabby, tiger cat; names or indices of outputs"
    )
    assert message_of(choose, "imagenet", Head(10, None), ("a", "b")) == (
        "teacher_classes=imagenet, but the teacher has 10 outputs\n  give a list or a file instead"
    )


def test_a_list_has_an_output_or_several_for_each_class() -> None:
    classes = ("dog", "cat")
    assert choose(["beagle", ["TABBY_CAT", 1]], ANIMALS, classes) == ChosenOutputs(
        [[2], [0, 1]], ["dog is its output 2 (beagle)", "cat is its output 0 (tabby) + 1 (tiger cat)"]
    )
    assert choose([2, [0]], Head(3, None), classes).lines == ["dog is its output 2", "cat is its output 0"]
    assert choose([0, 1, 2], ANIMALS, ("a", "b", "c")) == ChosenOutputs(None, [])
    twice = "uses 2 (beagle) more than once\n  give each class outputs of its own"
    for wanted, told in (
        ([2, 3], "teacher_classes=[2, 3]: the teacher has no output 3\n  write an index from 0 to 2"),
        ([2, [2, 1]], f"teacher_classes=[2, [2, 1]] {twice}"),
        ([2], "teacher_classes=[2] has 1 entries, the dataset has 2 classes and the teacher 3 outputs\n"
              "  write one for each class; or a file with the names of all outputs, one a line"),
        ([0, "lion"], f"teacher_classes=[0, 'lion']: no output of the teacher is named lion\n{NAME_THEM}"),
    ):  # fmt: skip
        assert message_of(choose, wanted, ANIMALS, classes) == told
    assert message_of(choose, ["a", "b"], Head(3, None), classes) == (
        "teacher_classes=['a', 'b']: no output of the teacher is known as a: its 3 outputs have no names; "
        "no output of the teacher is known as b: its 3 outputs have no names\n"
        "  write indices, or give a file with the names of all outputs, one a line"
    )


def test_a_file_has_the_names_of_all_outputs_or_an_entry_for_each_class(tmp_path: Path) -> None:
    file, classes, nameless = tmp_path / "classes.txt", ("dog", "big cat"), Head(3, None)
    for text, head, outputs in (
        ("cat\nBig-Cat\n\ndog\n", nameless, [[2], [1]]),
        ("beagle\ntiger cat, 0\n", ANIMALS, [[2], [1, 0]]),
        ("big_cat: tabby, 1\nbird: robin\ndog: 2\n", ANIMALS, [[2], [0, 1]]),
    ):
        file.write_text(text, encoding="utf-8")
        assert choose(str(file), head, classes).outputs == outputs
    file.write_text("dog: 2\n", encoding="utf-8")
    assert message_of(choose, str(file), ANIMALS, classes) == (
        f"teacher_classes={file} has no line for big cat\n  add it, as in cat: tabby, tiger cat"
    )
    told = message_of(rehearse, compose_config([f"teacher_classes={tmp_path / 'no.txt'}", "teacher_checkpoint=x.pt"]))
    assert told.startswith(f"teacher_classes={tmp_path / 'no.txt'}: there is no such file\n")


def test_the_mapping_is_told_in_ten_lines_at_most() -> None:
    names = tuple(f"class {number}" for number in range(20))
    chosen = choose(None, Head(20, tuple((name,) for name in names)), names[::-1][:11])
    assert len(chosen.lines) == 10
    assert chosen.lines[-1] == "and so on, for 11 classes"


def teacher_of(classes: tuple[str, ...]) -> Network:
    shape = ImageShape(1, (8, 8), len(classes))
    network = build_network(MLP, "teacher", shape, [0.4], [0.3], 3, Builder())
    network.classes = classes
    return network.eval()


def val_images(opened: Opened) -> Tensor:
    return next(iter(opened.workshop.feed.val.chunks(16)))


def test_a_network_of_more_classes_gives_those_of_the_dataset_by_their_names(tmp_path: Path) -> None:
    classes = ("zero", *DIGITS[::-1], "ten")
    network, file = teacher_of(classes), tmp_path / "student.pt"
    save(file, network_content(network, MLP, "mlp"))
    told = Told()
    opened = open_run(tmp_path, [*SMALL, f"teacher_checkpoint={file}"], told)
    teacher, images = opened.teacher(), val_images(opened)
    assert torch.equal(teacher.own_network(images), network(images)[:, list(range(10, 0, -1))])
    assert teacher.own_network.classes == DIGITS
    assert "teacher: 9 is its output 1 (9)" in told.notes
    assert told.warnings == []
    save(file, network_content(teacher_of(("zero", "one", *DIGITS[:9])), MLP, "mlp"))
    assert message_of(open_run, tmp_path, [*SMALL, f"teacher_checkpoint={file}"]) == (
        f"teacher_checkpoint={file} was made for 11 classes, the dataset has 10: "
        f"no output of the teacher is named 9\n{REMEDY}"
    )


@pytest.mark.parametrize("gigabytes", [0, 1])
def test_bank_and_live_teacher_give_the_classes_of_the_dataset(gigabytes: int, tmp_path: Path) -> None:
    """A state dict of twelve outputs, of which two are the digit 1."""
    network, file = teacher_of(tuple(map(str, range(12)))), tmp_path / "weights.pt"
    torch.save(network.architecture.state_dict(), file)
    own = [*SMALL, "teacher=mlp", "teacher.hidden=[4]", f"teacher_checkpoint={file}",
           f"logit_bank_gigabytes={gigabytes}"]  # fmt: skip
    opened = open_run(tmp_path, [*own, "teacher_classes=[0,[1,11],2,3,4,5,6,7,8,9]"])
    trainer, guide = opened.student()
    batch = next(iter(trainer.batches.epoch(1)))
    assert guide is not None
    logits = network(batch.images)
    both = (logits[:, 1].exp() + logits[:, 11].exp()).log()
    expected = torch.cat([logits[:, :1], both.unsqueeze(1), logits[:, 2:10]], dim=1)
    torch.testing.assert_close(guide(batch).logits, expected)
    in_order = "teacher_classes=[0,1,2,3,4,5,6,7,8,9]"
    assert message_of(open_run, tmp_path, [*own, in_order, "mode=simkd", "student=cnn_tiny"]) == (
        "mode=simkd: it takes the teacher's last layer, whose classes are others or in another order\n"
        "  choose another mode, as in mode=soft"
    )
    other = open_run(tmp_path, [*own, in_order])
    assert other.teacher().fingerprint != opened.teacher().fingerprint
    assert message_of(open_run, tmp_path, own) == (
        f"teacher_checkpoint={file} was made for 12 classes, the dataset has 10\n{REMEDY}"
    )


TORCHVISION = ("teacher=torchvision", "teacher.name=mobilenet_v3_small", "teacher.input_size=32")
OUTPUTS = "teacher_classes=[0,1,2,3,4,5,6,7,8,[9,999]]"


@pytest.mark.parametrize("pretrained", ["true", "file"])
def test_a_pretrained_network_teaches_without_being_trained(
    pretrained: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        theirs = torchvision.models.mobilenet_v3_small().eval()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: theirs.state_dict())
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    value = tmp_path / "weights.pth" if pretrained == "file" else "true"
    own = [*SMALL, *TORCHVISION, f"teacher.pretrained={value}", "teacher_trains=nothing"]
    opened = open_run(tmp_path, [*own, OUTPUTS])
    assert opened.lineup.teachers == []
    teacher = opened.teacher()
    assert (teacher.origin, teacher.selected.epoch, teacher.name) == (Origin.LOADED, None, "mobilenet_v3_small")
    images = torch.nn.functional.interpolate(val_images(opened), (32, 32), mode="bilinear", antialias=True)
    with torch.no_grad():
        network = teacher.own_network
        mean, std = network.mean.flatten()[0], network.std.flatten()[0]
        logits = theirs(((images - mean) / std).expand(-1, 3, -1, -1))
        expected = torch.cat([logits[:, :9], logits[:, [9, 999]].logsumexp(1, keepdim=True)], dim=1)
        torch.testing.assert_close(network(val_images(opened)), expected, rtol=1e-3, atol=1e-4)
    assert message_of(open_run, tmp_path, own) == (
        f"teacher_trains=nothing, but mobilenet_v3_small was made for 1,000 classes, the dataset has 10\n{REMEDY}; "
        "or write teacher_trains=head"
    )


def test_what_cannot_be_left_untrained_is_told() -> None:
    for overrides, told in (
        (["teacher_trains=nothing"],
         "teacher_trains=nothing, but teacher has weights that were drawn at random\n"
         "  write teacher.pretrained=true, or FILE, for a network of torchvision or timm; or teacher_trains=all"),
        (["teacher_trains=head", "teacher_checkpoint=x.pt"],
         "teacher_trains=head, but a teacher_checkpoint is not trained\n"
         "  write teacher.pretrained=FILE instead of teacher_checkpoint=FILE"),
        ([*TORCHVISION, "teacher.pretrained=true", "teacher_trains=nothing", "teacher_seed=[0,1]"],
         "teacher_trains=nothing has no use for several seeds\n  write one teacher_seed"),
        (["teacher_classes=imagenet"],
         "teacher_classes is for a teacher that is not trained here, and there is none\n"
         "  leave it out; or write teacher_trains=nothing; or give one, as in teacher_checkpoint=my_weights.pt"),
    ):  # fmt: skip
        assert told in message_of(rehearse, compose_config(overrides))


def test_published_weights_without_a_last_layer_are_told(tmp_path: Path) -> None:
    pytest.importorskip("timm", reason="timm is not installed: pip install 'distill-run[models]'")
    own = ["teacher=timm", "teacher.name=vit_small_patch14_dinov2.lvd142m", "teacher.pretrained=true"]
    assert message_of(open_run, tmp_path, [*SMALL, *own, "teacher_trains=nothing"]) == (
        "teacher_trains=nothing, but the weights of vit_small_patch14_dinov2.lvd142m have no last layer\n"
        "  write teacher_trains=head, which trains one"
    )


PAIRS: list[tuple[tuple[str, ...], tuple[str, ...], list[list[int]] | None]] = [
    (("dark", "bright"), ("bright", "dark"), [[1], [0]]),
    (("Dark_Sky", "big-cat", "x"), ("x", "big  cat", "dark sky"), [[2], [1], [0]]),
    (("a", "b", "c", "d"), ("d", "a"), [[3], [0]]),  # more than the dataset has
    (("1", "10", "11", "2"), ("1", "2", "10", "11"), [[0], [3], [1], [2]]),  # folders as texts, and by number
    (("Jürgen", "Anna"), ("Anna", "Ju\u0308rgen"), [[1], [0]]),  # as macOS writes it
    (("cat", "Cat"), ("Cat", "cat"), [[1], [0]]),
    (("a", "b"), ("A", "B"), None),
    (("cat", "car"), ("cat", "automobile"), None),  # in order, as far as can be seen
    (("0", "1"), ("zero", "one"), None),
]


@pytest.mark.parametrize(("teachers", "datasets", "outputs"), PAIRS, ids=str)
def test_classes_of_another_order_are_put_in_order_by_their_names(
    teachers: tuple[str, ...], datasets: tuple[str, ...], outputs: list[list[int]] | None
) -> None:
    head = Head(len(teachers), tuple((name,) for name in teachers))
    assert choose(None, head, datasets).outputs == outputs


@pytest.mark.parametrize(
    ("teachers", "datasets"),
    [
        (("cat", "car", "dog"), ("automobile", "cat", "dog")),  # one name differs, another is at another place
        (("Cat ", "cat"), ("cat", "Cat")),  # to the letter, only one can be found, and elsewhere
        (("a", "b"), ("a", "b", "c")),  # fewer than the dataset has
    ],
)
def test_a_teacher_that_can_be_put_in_order_only_in_part_is_refused(
    teachers: tuple[str, ...], datasets: tuple[str, ...]
) -> None:
    head = Head(len(teachers), tuple((name,) for name in teachers))
    what, remedy = message_of(choose, None, head, datasets).split("\n")
    order = "has the dataset's classes in another order, and not all of them by one name: "
    assert what.startswith(f"teacher_checkpoint=x.pt {order if len(teachers) == len(datasets) else 'was made for 2 '}")
    assert remedy == "  remedy"


def test_a_teacher_in_another_order_alone_and_in_an_ensemble_gives_the_dataset_s_logits(tmp_path: Path) -> None:
    """The student is taught by them from the bank and live; a warning is in the report."""
    turned, straight = teacher_of(DIGITS[::-1]), teacher_of(DIGITS)
    files = [tmp_path / "turned.pt", tmp_path / "straight.pt"]
    for file, network in zip(files, (turned, straight), strict=True):
        save(file, network_content(network, MLP, "mlp"))
    for gigabytes in (0, 1):
        told = Told()
        own = [*SMALL, f"teacher_checkpoint=[{files[0]},{files[1]}]", f"logit_bank_gigabytes={gigabytes}"]
        opened = open_run(tmp_path, own, told)
        trainer, guide = opened.student()
        batch = next(iter(trainer.batches.epoch(1)))
        assert guide is not None
        members = guide(batch).members
        torch.testing.assert_close(members[0][1], turned(batch.images).flip(1))
        torch.testing.assert_close(members[1][1], straight(batch.images))
        assert told.warnings[:1] == [
            "the teacher has the dataset's classes in another order: its outputs are put in order by their names"
        ]
        assert "teacher: 0 is its output 9 (0)" in told.notes


def test_other_names_in_what_may_be_the_same_order_are_a_warning_unless_the_user_has_said_so(tmp_path: Path) -> None:
    file = tmp_path / "named.pt"
    save(file, network_content(teacher_of(tuple("abcdefghij")), MLP, "mlp"))
    for choice, warning in (
        ([], "the teacher's classes are named differently from the dataset's; is their order the same?"),
        (["teacher_classes=[0,1,2,3,4,5,6,7,8,9]"], None),
    ):
        (teacher,) = open_run(tmp_path, [*SMALL, f"teacher_checkpoint={file}", *choice]).lineup.loaded
        assert teacher.warning == warning
        assert teacher.network.classes == DIGITS


def test_published_weights_are_put_in_order_where_the_dataset_has_imagenet_s_classes(tmp_path: Path) -> None:
    """Folders are sorted by their names; of as many other classes, nothing is known."""
    names = imagenet_names()
    given = GivenTeachers(compose_config(SMALL), None, Builder())  # type: ignore[arg-type]
    node = {"_target_": "distill_run.models.pretrained.torchvision_model", "name": "resnet18", "pretrained": True}
    by_name = tuple(sorted(name[0] for name in names))
    for classes, is_named in ((by_name, True), (by_name[:999], False)):
        images = SimpleNamespace(classes=classes)
        head = replace(given, images=images)._published_head(Architecture("teacher", "torchvision", node), 1000)
        assert head.names == (names if is_named else None)
    node["pretrained"] = "file.pt"
    whole = replace(given, images=SimpleNamespace(classes=by_name))
    assert whole._published_head(Architecture("teacher", "torchvision", node), 1000).names is None
