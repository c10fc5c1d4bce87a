"""What a command's RUN_OR_FILE names: a network, and the run that it comes from."""

from dataclasses import dataclass
from pathlib import Path

from distill_run.build import OWN_PACKAGES
from distill_run.checkpoint import load_network
from distill_run.deploy.past_run import PastRun
from distill_run.errors import user_error
from distill_run.files import RunFiles
from distill_run.models.network import Network


@dataclass(frozen=True)
class Shipped:
    """A network, in eval mode on the CPU, the file that it was read from, and its run; None where it has none."""

    path: Path
    network: Network
    run: PastRun | None


def open_shipped(place: Path, code_dir: Path | None = None, *, trusts: bool = False) -> Shipped:
    """The network that `place` names: a run's directory, its student.pt, or any other file of a network.

    `code_dir` is the folder of the user's own architectures; with `trusts`, a run's own is used. Raises UserError where
    there is no such network, and where a run names code that is not trusted.
    """
    run_dir = _run_dir(place)
    if run_dir is None:
        return Shipped(place, load_network(place, code_dir), None)
    run, path = PastRun.read(run_dir, code_dir, trusts=trusts), RunFiles(run_dir).student
    if not path.is_file():
        raise user_error(f"{run_dir} has no {path.name}", "repeat the run, which writes it")
    settings = run.settings
    network = load_network(path, settings.code_dir, settings.trusted_packages or OWN_PACKAGES)
    return Shipped(path, network, run)


def _run_dir(place: Path) -> Path | None:
    """The directory of the run whose student `place` names; None for another file."""
    if RunFiles(place).status.is_file():
        return place
    for run_dir in place.absolute().parents:
        files = RunFiles(run_dir)
        if files.student.resolve() == place.resolve() and files.status.is_file():
            return run_dir
    return None
