"""Who may import whom: design.md, section 3, read off the source with ast."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import distill_run
from sweeps import write_run

ROOT = Path(distill_run.__file__).parent
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sorted(ROOT.rglob("*.py"))}
ENTRY = {"cli", "config", "run", "preflight", "explain", "help", "sweep_request", "search_space", "search_command"}
WITHOUT_TORCH = [
    *("cli", "config", "preflight", "explain", "help", "schema", "accept", "errors", "store", "console"),
    *("sweep_request", "sweep_progress", "report_command", "search_command", "search_space", "store_command"),
]

# From the top down; a module imports its own layer or those below. A folder stands for its modules.
LAYERS = (
    {
        *("cli", "preflight", "explain", "help", "benchmarks"),
        *("sweep_request", "sweep_progress", "report_command", "search_command", "search_space", "store_command"),
    },
    {"run"},
    {"report", "prepare"},
    {"stages"},
    {"fit"},
    {"evaluate", "checkpoint", "environment", "config"},
    {"objectives", "models", "data", "store", "console", "device", "build", "schedules", "interrupt", "totals"},
    {"losses", "relation_losses", "contrast", "units", "schema", "arguments"},
    {"feature_losses"},
    {"accept"},
    {"errors"},
)


def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def imports(module: str, *, module_level: bool = False) -> Iterator[str]:
    """Full names of what a module imports; of a `from` import, those of module and name."""
    tree = tree_of(module)
    for node in tree.body if module_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def importers_of(package: str) -> set[str]:
    return {module for module in MODULES if any(name.split(".")[0] == package for name in imports(module))}


def own_imports(module: str) -> set[str]:
    """The modules of the package that a module imports, without the package's name."""
    names = {name.removeprefix("distill_run.") for name in imports(module) if name.startswith("distill_run.")}
    return {
        max((known for known in MODULES if f"{name}.".startswith(f"{known}.")), key=len, default=name) for name in names
    }


def layer_of(module: str) -> int:
    layers = [place for place, members in enumerate(LAYERS) if module.split(".")[0] in members]
    assert len(layers) == 1, f"say in LAYERS where {module} belongs"
    return layers[0]


def test_every_module_is_found() -> None:
    assert {"cli", "losses", "data.views", "objectives.soft", "report.summary"} <= MODULES.keys()
    assert "schema" in own_imports("config")
    assert own_imports("stages.teacher") >= {"checkpoint", "data.batches", "evaluate"}


@pytest.mark.parametrize("module", sorted(MODULES.keys() - {"__init__"}))
def test_imports_go_down_only(module: str) -> None:
    upwards = {name for name in own_imports(module) if name != "__init__" and layer_of(name) < layer_of(module)}
    assert upwards == set()


def test_only_the_entry_and_the_story_import_hydra() -> None:
    assert importers_of("hydra") == ENTRY


def test_only_the_entry_and_the_story_know_omegaconf() -> None:
    assert importers_of("omegaconf") <= ENTRY
    for module in MODULES.keys() - ENTRY:
        names = {node.id for node in ast.walk(tree_of(module)) if isinstance(node, ast.Name)}
        assert "DictConfig" not in names, module


def test_only_the_console_imports_rich() -> None:
    assert importers_of("rich") == {"console"}


def test_the_mathematics_imports_nothing_of_the_package_but_what_parameters_accept_and_itself() -> None:
    mathematics = ("losses", "feature_losses", "relation_losses", "contrast")
    assert {name for module in mathematics for name in own_imports(module)} <= {"accept", *mathematics}


def test_the_loop_knows_no_mode_no_dataset_and_no_architecture() -> None:
    known = own_imports("fit")
    objectives = {name for name in known if name.startswith("objectives.")}
    data = {name for name in known if name.startswith("data.")}
    assert objectives == {"objectives.base", "objectives.total"}
    assert data <= {"data.batches", "data.draws", "data.source"}
    assert {name for name in known if name.startswith("models.")} <= {"models.features", "models.network"}


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_the_entry_imports_no_torch_at_module_level(module: str) -> None:
    assert {name for name in imports(module, module_level=True) if name.split(".")[0] == "torch"} == set()


def test_the_command_is_imported_without_torch() -> None:
    """Help, completion and mistakes in the configuration answer before torch could be loaded."""
    heavy = ("torch", "torchvision", "sklearn", "matplotlib", "rich")
    program = (
        "import sys, distill_run.cli, distill_run.preflight\n"
        "from distill_run.config import check, compose_config\n"
        "check(compose_config())\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_sweep_is_reported_without_torch(tmp_path: Path) -> None:
    """A report is built from files, also where nothing could be trained."""
    for number in range(2):
        write_run(tmp_path / str(number), [f"mode.alpha=0.{number}"])
    program = (
        "import sys, pathlib, distill_run.report_command\n"
        "from distill_run.report.sweep_pages import write_sweep_report\n"
        "write_sweep_report([pathlib.Path(sys.argv[1])], pathlib.Path(sys.argv[1]))\n"
        "print([name for name in ('torch', 'torchvision', 'sklearn', 'hydra') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert (tmp_path / "plots" / "sweep.png").is_file()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_nothing_is_printed(module: str) -> None:
    calls = [node for node in ast.walk(tree_of(module)) if isinstance(node, ast.Call)]
    assert [node.lineno for node in calls if isinstance(node.func, ast.Name) and node.func.id == "print"] == []


@pytest.mark.parametrize("module", sorted(MODULES))
def test_nothing_is_imported_by_star(module: str) -> None:
    assert [name for name in imports(module) if name.endswith(".*")] == []
