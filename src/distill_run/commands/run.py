"""The command `distill-run`. What it does stands in commands/distill.py, which takes a second to load: Hydra."""

import sys
from typing import NoReturn

from distill_run.commands.threads import let_threads_wait
from distill_run.errors import leave


def main() -> NoReturn:
    """Run the command line in sys.argv; exits with 0, with 1 after a mistake, with 130 after an interruption."""
    let_threads_wait()
    leave(_run_command)


def _run_command() -> bool:
    from distill_run.commands.distill import run_command  # here, so that Ctrl-C ends this import without a traceback

    return run_command(sys.argv[1:])
