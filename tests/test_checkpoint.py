"""Files of weights: nothing is lost, nothing that they carry is run, and what does not fit is told."""

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from distill_run.build import Builder
from distill_run.checkpoint import (
    is_network,
    load_given,
    load_network,
    network_content,
    rebuild,
)
from distill_run.data.source import ImageShape
from distill_run.models.network import Network, build_network
from distill_run.tensor_files import load, load_weights, save
from helpers import fill, message_of

SHAPE = ImageShape(3, (8, 6), 4)
CLASSES = ("ant", "bee", "cat", "dog")
NODE = {"_target_": "distill_run.models.cnn.CNN", "widths": [4, 6], "hidden": [5], "batch_norm": True, "dropout": 0.5}


class RunsCode:
    """Unpickled without care, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self.marker), "w")


def some_network(shape: ImageShape = SHAPE, node: dict[str, Any] = NODE) -> Network:
    mean, std = [0.5, 0.4, 0.3][: shape.in_channels], [0.2, 0.3, 0.4][: shape.in_channels]
    network = build_network(node, "student", shape, mean, std, 0, Builder())
    fill(network)
    network(torch.rand(4, shape.in_channels, *shape.image_size))  # moves the running statistics
    return network


def content_of(network: Network) -> dict[str, Any]:
    network.classes = CLASSES
    return network_content(network, NODE, "cnn")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints" / "student.pt"


def test_a_saved_network_gives_the_same_logits_to_the_bit(path: Path) -> None:
    network = some_network()
    save(path, content_of(network))
    before = torch.get_rng_state()
    again = load_network(path)
    assert torch.equal(torch.get_rng_state(), before)
    images = torch.rand(5, 3, 8, 6, generator=torch.Generator().manual_seed(0))
    assert not again.training
    assert torch.equal(again(images), network.eval()(images))
    assert torch.equal(again.mean, network.mean)
    assert torch.equal(again.std, network.std)
    assert again.classes == CLASSES
    assert again.image_size == (8, 6)
    assert again.state_dict().keys() == network.state_dict().keys()


def test_a_file_of_a_network_says_all_that_is_needed_to_use_it(path: Path) -> None:
    save(path, content_of(some_network()))
    content = load(path)
    assert {key: content[key] for key in content if key != "weights"} == {
        "format": 1, "name": "cnn", "architecture": NODE, "in_channels": 3, "image_size": [8, 6], "crop_ratio": 1.0,
        "classes": list(CLASSES), "mean": pytest.approx([0.5, 0.4, 0.3]), "std": pytest.approx([0.2, 0.3, 0.4]),
    }  # fmt: skip
    assert is_network(content)
    assert content["weights"].keys() == some_network().architecture.state_dict().keys()


def test_what_cannot_be_saved_leaves_the_old_file(path: Path) -> None:
    save(path, {"a": torch.ones(2)})
    save(path, {"a": 1})
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
        save(path, {"a": lambda: None})
    assert load(path) == {"a": 1}
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "write", [torch.save, lambda content, file: pickle.dump(content, file, 2)], ids=["zip", "pickle"]
)
def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path: Path, write: Callable[..., None]) -> None:
    marker, path = tmp_path / "marker", tmp_path / "evil.pt"
    with path.open("wb") as file:
        write({"weights": RunsCode(marker)}, file)
    assert message_of(load, path) == (
        f"{path} holds a Python object (io.open), which could run code when loaded: refused\n"
        f"  if you trust it, save its tensors alone: torch.save(torch.load('{path}', weights_only=False)"
        "['state_dict'], 'weights.pt'), or .state_dict() instead of ['state_dict'] if it is a whole network"
    )
    assert not marker.exists()


def test_the_trap_of_the_test_above_works(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(RunsCode(tmp_path / "marker"))).close()
    assert (tmp_path / "marker").exists()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert message_of(load, tmp_path / "x.pt") == f"there is no checkpoint {tmp_path / 'x.pt'}\n  check the path"
    assert message_of(load, tmp_path) == f"there is no checkpoint {tmp_path}\n  check the path"


def test_a_truncated_file_is_refused(path: Path) -> None:
    save(path, content_of(some_network()))
    whole = path.read_bytes()
    for share in (0.0, 0.01, 0.3, 0.9, 0.999):
        path.write_bytes(whole[: int(share * len(whole))])
        what, remedy = message_of(load, path).splitlines()
        assert what.startswith(f"{path} is ")
        assert remedy.startswith(("  copy it again", "  save tensors alone"))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    for content in (
        b"", b"hello, world\n", b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n", b'{"weights": [1, 2]}\n',
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", b"\x80\x02.", b"\x80\x05N",
        b"\xff\xd8\xff\xe0\x00\x10JFIF", b"\x00" * 100, "Müller\n".encode(), b"(\n", b"0.", b"}.", b"I1\n.",
    ):  # fmt: skip
        path.write_bytes(content)
        assert message_of(load, path).startswith(f"{path} is ")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert message_of(load, path).startswith(f"{path} is ")
    torch.save(some_network(), path)  # a whole pickled network
    assert message_of(load, path).startswith(f"{path} holds a Python object (distill_run.models.network.Network), ")


def test_a_file_that_holds_no_network_is_told_from_one(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    contents: list[object] = [{"a": torch.ones(2)}, torch.ones(2), [1, 2], {"weights": {}}]
    for content in contents:
        torch.save(content, path)
        assert message_of(load_network, path) == (
            f"{path} holds no network of distill-run\n  give a run's checkpoints/student.pt"
        )
    torch.save({"architecture": "resnet18", "weights": {"fc.bias": torch.zeros(2)}}, path)
    assert str(path) in message_of(load_network, path)


def test_another_format_is_refused() -> None:
    content = {**content_of(some_network()), "format": 2}
    assert message_of(rebuild, content, Builder()) == (
        "the network file has format 2, this program reads 1\n  use the version of distill-run that wrote it"
    )


def test_an_architecture_outside_the_trusted_packages_is_refused(path: Path) -> None:
    content = {**content_of(some_network()), "architecture": {"_target_": "os.system", "command": "true"}}
    save(path, content)
    assert message_of(load_network, path).startswith("architecture._target_=os.system is outside the trusted packages")


def test_a_network_file_runs_no_code_of_a_folder_that_it_names(tmp_path: Path, path: Path) -> None:
    """torch is trusted, but torch.hub.load runs whatever Python it is pointed to."""
    marker = tmp_path / "marker"
    (tmp_path / "hubconf.py").write_text(
        f"open({str(marker)!r}, 'w').close()\ndef net(**arguments):\n    raise ValueError('built')\n", encoding="utf-8"
    )
    where = {"repo_or_dir": str(tmp_path), "model": "net", "source": "local", "args": []}
    architecture = {"_target_": "torch.hub.load", **where}
    save(path, {**content_of(some_network()), "architecture": architecture})
    message_of(load_network, path)
    assert not marker.exists()


def weights_of(network: Network) -> dict[str, torch.Tensor]:
    return dict(network.architecture.state_dict())


def test_weights_that_fit_are_loaded() -> None:
    network, other = some_network(), some_network()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    load_weights(network.architecture, weights_of(other), "cnn")
    assert all(torch.equal(value, weights_of(other)[key]) for key, value in weights_of(network).items())


def test_weights_that_do_not_fit_are_named_and_leave_the_network_as_it_was() -> None:
    """Two stages of a convolution's weight and batch norm's five, two linear layers of two: 16 in all."""
    network = some_network()
    whole = {key: value.clone() for key, value in weights_of(network).items()}
    made_with = "choose the architecture it was made with"
    for weights, told in (
        ({key: value for key, value in whole.items() if key != "head.1.weight"},
         f"the checkpoint does not fit cnn: it lacks head.1.weight\n  {made_with}"),
        ({"fc.weight": torch.zeros(1), "head.4.bias": torch.zeros(10)},
         f"the checkpoint does not fit cnn: it lacks {', '.join(list(whole)[:5])} and 10 more; it has in surplus "
         f"fc.weight; it has with another shape head.4.bias (10,) instead of (4,)\n  {made_with}"),
        ({**whole, "fc.weight": torch.zeros(1)},
         f"the checkpoint does not fit cnn: it has in surplus fc.weight\n  {made_with}"),
        ({key: value + 1 for key, value in whole.items()} | {"head.4.bias": torch.zeros(10)},
         "the checkpoint does not fit cnn: it has with another shape head.4.bias (10,) instead of (4,)\n"
         "  choose the architecture, the number of classes and the image size it was made with"),
    ):  # fmt: skip
        assert message_of(load_weights, network.architecture, weights, "cnn") == told
    assert all(torch.equal(value, whole[key]) for key, value in weights_of(network).items())


def test_given_weights_are_loaded_and_the_others_stay() -> None:
    network = some_network()
    before = {key: value.clone() for key, value in weights_of(network).items()}
    load_given(network, {"head.4.bias": torch.tensor([1.0, 2.0, 3.0, 4.0])})
    changed = {key for key, value in weights_of(network).items() if not torch.equal(value, before[key])}
    assert changed == {"head.4.bias"}
    assert weights_of(network)["head.4.bias"].tolist() == [1, 2, 3, 4]


def test_given_weights_that_do_not_fit_are_named_and_none_is_loaded() -> None:
    network = some_network()
    before = {name: value.clone() for name, value in weights_of(network).items()}
    for key, size, message in (
        ("head.5.bias", 4, "the network has no weights head.5.bias\n  give weights by the keys of its state_dict()"),
        ("head.4.bias", 3,
         "head.4.bias is given with the shape (3,), the network needs (4,)\n"
         "  give weights of the shape that they have in its state_dict()"),
    ):  # fmt: skip
        assert (
            message_of(load_given, network, {"head.1.bias": before["head.1.bias"] + 1, key: torch.ones(size)})
            == message
        )
    assert all(torch.equal(value, before[name]) for name, value in weights_of(network).items())
