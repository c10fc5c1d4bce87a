"""Components: which targets are trusted, which arguments fit, and how a refusal is told."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from distill_run.build import OWN_PACKAGES, Builder
from distill_run.config.settings import compose_config
from distill_run.errors import RejectedValueError, UserError
from distill_run.objectives.soft import SoftTargets
from helpers import SOFT, message_of

TRUSTED = "distill_run, torch.optim, torchvision, timm"


def changed(**changes: Any) -> dict[str, Any]:
    return {**SOFT, **changes}


def test_a_component_is_built_with_its_arguments() -> None:
    objective = Builder().build(SOFT, "mode")
    assert isinstance(objective, SoftTargets)
    assert (objective.temperature, objective.weight, objective.divergence) == (4.0, 0.5, "forward")


def test_what_the_program_injects_joins_the_users_arguments() -> None:
    parameter = torch.zeros(1, requires_grad=True)
    node = {"_target_": "torch.optim.SGD", "lr": 0.25}
    optimizer = Builder().build(node, "training.student.optimizer", params=[parameter])
    assert optimizer.param_groups[0]["lr"] == 0.25
    assert optimizer.param_groups[0]["params"] == [parameter]


def test_the_node_is_not_changed() -> None:
    node = changed()
    Builder().build(node, "mode")
    assert node == SOFT


def test_the_packages_that_a_checkpoint_may_name_are_those_of_the_yaml() -> None:
    assert tuple(compose_config().trusted_packages) == OWN_PACKAGES


def test_the_code_hash_follows_the_user_s_own_files_and_only_where_they_are_used(tmp_path: Path) -> None:
    (tmp_path / "hashed_net.py").write_text("def net():\n    return 1\n")
    builder = Builder(code_dir=tmp_path)
    own, packaged = {"_target_": "hashed_net.net"}, {"_target_": "torch.optim.SGD"}
    before = builder.code_hash(own, packaged)
    assert before is not None
    assert builder.code_hash(packaged) is None
    assert Builder().code_hash(own) is None
    (tmp_path / "hashed_net.py").write_text("def net():\n    return 2\n")
    assert builder.code_hash(own) not in (None, before)


def test_a_target_outside_the_trusted_packages_is_refused() -> None:
    for target in ("os.system", "subprocess.Popen", "shutil.rmtree", "torchx.Evil", "distill_run2.X"):
        package = target.split(".")[0]
        assert message_of(Builder().build, {"_target_": target}, "student") == (
            f"student._target_={target} is outside the trusted packages ({TRUSTED})\n"
            f"  if you trust it, add 'trusted_packages=[distill_run,torch.optim,torchvision,timm,{package}]'"
        )
    for target in ("system", "eval", "", "."):
        what, _ = message_of(Builder().build, {"_target_": target}, "student").splitlines()
        assert what == f"student._target_={target} is outside the trusted packages ({TRUSTED})"


def test_a_refused_target_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "untrusted_module.py").write_text("raise AssertionError('it was imported')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    message_of(Builder().build, {"_target_": "untrusted_module.Model"}, "student")
    assert "untrusted_module" not in sys.modules


def test_a_package_that_the_user_trusts_is_trusted() -> None:
    builder = Builder(trusted_packages=("fractions",))
    assert builder.build({"_target_": "fractions.Fraction", "numerator": 3, "denominator": 6}, "x") == 0.5
    assert message_of(builder.build, SOFT, "mode").startswith(
        "mode._target_=distill_run.objectives.soft.SoftTargets is outside the trusted packages (fractions)"
    )


def test_a_target_that_is_not_there_is_told() -> None:
    what, remedy = message_of(
        Builder().build, changed(_target_="distill_run.objectives.soft.Soft"), "mode"
    ).splitlines()
    assert what.startswith("mode._target_=distill_run.objectives.soft.Soft was not found: ")
    assert remedy == "  check its spelling"
    what, _ = message_of(Builder().build, changed(_target_="distill_run.objectives.sofd.Soft"), "mode").splitlines()
    assert what == (
        "mode._target_=distill_run.objectives.sofd.Soft was not found: No module named 'distill_run.objectives.sofd'"
    )


def test_a_target_that_is_no_class_or_function_is_refused() -> None:
    assert message_of(Builder().build, {"_target_": "distill_run.losses.logits.DIVERGENCES"}, "mode") == (
        "mode._target_=distill_run.losses.logits.DIVERGENCES is not a class or a function\n  check its spelling"
    )


def test_an_argument_that_does_not_exist_is_told_with_the_nearest() -> None:
    assert message_of(Builder().build, changed(temprature=2), "mode") == (
        "mode.temprature is not a key of the configuration\n  did you mean mode.temperature?"
    )


def test_an_argument_like_none_of_the_others_is_told() -> None:
    what, remedy = message_of(Builder().build, changed(zzzzzzzzzzzzzzz=2), "mode").splitlines()
    assert what == "mode.zzzzzzzzzzzzzzz is not a key of the configuration"
    assert remedy == "  distill-run --help lists the keys"


def test_all_surplus_arguments_are_told_at_once() -> None:
    with pytest.raises(UserError) as caught:
        Builder().build(changed(alpah=1, tempreature=2), "mode")
    assert [mistake.remedy for mistake in caught.value.mistakes] == [
        "did you mean mode.alpha?",
        "did you mean mode.temperature?",
    ]


def test_an_argument_that_the_program_gives_is_not_the_users() -> None:
    node = {"_target_": "distill_run.models.mlp.MLP", "hidden": [2], "dropout": 0.0, "num_classes": 3}
    message = message_of(Builder().build, node, "student", in_channels=1, image_size=(2, 2), num_classes=5)
    assert message.startswith("student.num_classes is not a key of the configuration")


def test_missing_arguments_are_told() -> None:
    node = {"_target_": SOFT["_target_"], "temperature": 4.0, "weight": 1.0, "standardize_logits": False}
    assert message_of(Builder().build, node, "mode") == "mode lacks alpha, divergence\n  add mode.alpha=VALUE"


def test_binding_finds_the_same_mistakes_without_building() -> None:
    builder = Builder()
    assert builder.bind(changed(temperature=-1), "mode") is SoftTargets  # a value is the constructor's business
    assert message_of(builder.bind, changed(temprature=2), "mode").startswith("mode.temprature is not a key")


def test_a_value_that_the_constructor_refuses_is_told_with_its_full_key() -> None:
    with pytest.raises(RejectedValueError) as caught:
        Builder().build(changed(temperature=-1), "training.mode")
    assert str(caught.value) == "training.mode.temperature=-1 is not accepted\n  write a number above 0"


def test_a_value_error_of_somebody_elses_constructor_becomes_two_lines() -> None:
    node = {"_target_": "torch.optim.SGD", "lr": 0.1, "nesterov": True}
    parameter = torch.zeros(1, requires_grad=True)
    assert message_of(Builder().build, node, "training.student.optimizer", params=[parameter]) == (
        "training.student.optimizer: Nesterov momentum requires a momentum and zero dampening\n"
        "  see the arguments of torch.optim.SGD"
    )


def test_an_error_in_the_code_of_a_component_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "own_broken_model.py").write_text("def make():\n    return {}['absent']\n", encoding="utf-8")
    assert message_of(Builder(code_dir=tmp_path).build, {"_target_": "own_broken_model.make"}, "student") == (
        f"{tmp_path / 'own_broken_model.py'}, line 2: KeyError: 'absent'\n"
        "  mend that line; HYDRA_FULL_ERROR=1 shows how it was reached"
    )


def test_modules_and_packages_of_the_users_folder_are_found_and_sys_path_is_as_before(tmp_path: Path) -> None:
    (tmp_path / "own_model_a.py").write_text("def make(*, size):\n    return [size]\n", encoding="utf-8")
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "__init__.py").touch()
    (tmp_path / "own_package" / "nets.py").write_text("class Net:\n    pass\n", encoding="utf-8")
    before = list(sys.path)
    net = Builder(code_dir=tmp_path).build({"_target_": "own_package.nets.Net"}, "student")
    assert type(net).__name__ == "Net"
    assert Builder(code_dir=tmp_path).build({"_target_": "own_model_a.make", "size": 3}, "student") == [3]
    assert sys.path == before


def test_sys_path_is_as_before_when_the_users_module_fails(tmp_path: Path) -> None:
    (tmp_path / "own_model_b.py").write_text("import absent_module_of_the_test\n", encoding="utf-8")
    before = list(sys.path)
    message = message_of(Builder(code_dir=tmp_path).build, {"_target_": "own_model_b.make"}, "student")
    assert message == (
        "student._target_=own_model_b.make was not found: No module named 'absent_module_of_the_test'\n"
        "  check its spelling"
    )
    assert sys.path == before


def test_a_module_beside_the_users_folder_is_not_trusted(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "own_model_c.py").write_text("def make():\n    return 1\n", encoding="utf-8")
    message = message_of(Builder(code_dir=tmp_path / "code").build, {"_target_": "own_model_c.make"}, "student")
    assert message.startswith("student._target_=own_model_c.make is outside the trusted packages")


def test_a_target_that_takes_any_arguments_can_be_built(tmp_path: Path) -> None:
    (tmp_path / "own_model_d.py").write_text(
        "def anything(*layers, **arguments):\n    return layers, arguments\n", encoding="utf-8"
    )
    built = Builder(code_dir=tmp_path).build({"_target_": "own_model_d.anything", "depth": 2}, "student", num_classes=3)
    assert built == ((), {"depth": 2, "num_classes": 3})
