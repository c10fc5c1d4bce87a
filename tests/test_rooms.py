"""Who may import whom, read off the source with ast: rules between rooms, the packages and single files at the top."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import distill_run
from sweeps import write_run

ROOT = Path(distill_run.__file__).parent
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sorted(ROOT.rglob("*.py"))}

# From the top down; a room imports those below it.
ROOMS = (
    ("commands", "benchmarks"),
    ("pipeline", "trackers"),
    ("sweeps", "deploy"),
    ("record",),
    ("report",),
    ("stages",),
    ("checkpoint", "engine"),
    ("objectives",),
    ("models",),
    ("data",),
    ("losses", "build", "tensor_files"),
    ("console", "config", "store"),
    ("typed_json", "store_records", "shared_folder"),
    ("files", "fingerprints", "rules", "own_code", "quoting"),
    ("out_of_memory", "stretches"),
    ("errors", "units", "listener", "processes"),
    ("safe_text",),
)
FLOORS = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}
MAY_IMPORT = {"hydra": {"commands", "config"}, "omegaconf": {"commands", "config"}, "rich": {"console"}}
HEAVY = ("torch", "torchvision", "sklearn", "matplotlib", "optuna", "tensorboard", "wandb", "mlflow")


def imports(module: str) -> Iterator[str]:
    """Full names of what a module imports; of a `from` import, those of module and name."""
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(module: str) -> str:
    return module.split(".")[0]


def rooms_imported() -> dict[str, set[str]]:
    """The rooms that each room imports."""
    found: dict[str, set[str]] = {}
    for module in MODULES:
        names = [name.split(".")[1] for name in imports(module) if name.startswith("distill_run.")]
        found.setdefault(room_of(module), set()).update(name for name in names if name != room_of(module))
    return found


def modules_loaded_by(program: str, *arguments: str) -> set[str]:
    """The heavy packages that a program has loaded at its end."""
    code = f"import sys\n{program}\nprint(*(name for name in {(*HEAVY, 'hydra', 'rich')} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_every_room_has_its_floor() -> None:
    assert {room_of(module) for module in MODULES} - {"__init__", "__main__"} == FLOORS.keys()


def test_imports_go_down_only() -> None:
    upwards = {
        f"{room} imports {other}"
        for room, others in rooms_imported().items()
        for other in others
        if room in FLOORS and FLOORS[other] <= FLOORS[room]
    }
    assert upwards == set()


def test_no_two_rooms_import_each_other() -> None:
    assert list(TopologicalSorter(rooms_imported()).static_order())


def test_hydra_omegaconf_and_rich_stay_in_their_rooms() -> None:
    for package, rooms in MAY_IMPORT.items():
        importers = {room_of(module) for module in MODULES for name in imports(module) if name.split(".")[0] == package}
        assert importers <= rooms, package


def test_losses_import_nothing_of_the_program_but_rules() -> None:
    assert rooms_imported()["losses"] <= {"rules"}


def test_the_loop_knows_no_mode_no_dataset_and_no_architecture() -> None:
    known = {".".join(name.split(".")[1:3]) for name in imports("engine.loop") if name.startswith("distill_run.")}
    rooms = {"objectives", "data", "models"}
    contracts = {"objectives.base", "objectives.total", "data.batches", "data.draws", "data.source"}
    assert {name for name in known if room_of(name) in rooms} <= contracts | {
        *("models.features", "models.network", "models.outputs")
    }


def test_the_commands_load_nothing_heavy_before_they_must() -> None:
    """Help, completion and mistakes in the configuration answer before torch could be loaded."""
    program = (
        "from distill_run.commands import distill, export, measure, predict, preflight, report, search, store\n"
        "from distill_run.config.settings import compose_config\n"
        "compose_config()"
    )
    assert modules_loaded_by(program) <= {"hydra", "rich"}


INTERRUPTED = """
import os, signal, sys
from importlib import import_module

def press_ctrl_c(event, arguments):
    if event == "import" and arguments[0] == "distill_run.commands.arguments":
        os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background may be told to ignore it
sys.addaudithook(press_ctrl_c)
for place in sys.argv[1:]:
    module, _, name = place.partition(":")
    try:
        getattr(import_module(module), name)()
    except SystemExit as end:
        print(end.code)
"""


def test_ctrl_c_ends_each_installed_command_while_it_loads() -> None:
    """What is imported before a command starts would end with a traceback, so it must be little."""
    scripts = tomllib.loads((ROOT.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    places = list(scripts.values())
    assert modules_loaded_by("\n".join("from {} import {}".format(*place.split(":")) for place in places)) == set()
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, *places], capture_output=True, text=True)
    assert (done.stdout, done.stderr, done.returncode) == ("130\n" * len(places), "", 0)


def test_a_sweep_is_reported_without_torch(tmp_path: Path) -> None:
    """A report is built from files, also where nothing could be trained."""
    for number in range(2):
        write_run(tmp_path / str(number), [f"mode.alpha=0.{number}"])
    program = (
        "import pathlib\n"
        "from distill_run.sweeps.report.pages import write_sweep_report\n"
        "write_sweep_report([pathlib.Path(sys.argv[1])], pathlib.Path(sys.argv[1]))"
    )
    assert modules_loaded_by(program, str(tmp_path)) <= {"matplotlib"}
    assert (tmp_path / "plots" / "sweep.png").is_file()
