"""The installed commands. Little is loaded here, so that Ctrl-C also ends a command while it loads the rest.

What each of them does stands in a module of its own, as `run_command`.
"""

import atexit
import signal
import sys
from functools import partial
from importlib import import_module
from typing import NoReturn

from distill_run.commands.threads import let_threads_wait
from distill_run.errors import interruptions, leave
from distill_run.out_of_memory import told_of_no_memory

MORE_MEMORY = (
    "end other programs, or use a computer with more memory; "
    "where a GPU has too little, CUDA_VISIBLE_DEVICES= before the command makes it use the CPU"
)


def start(module: str) -> NoReturn:
    """Let a module of commands/ do what the words in sys.argv say, and end the program: see errors.leave."""
    let_threads_wait()
    try:
        leave(partial(_run, module))
    finally:
        # What is registered last runs first when Python ends: from then on Ctrl-C ends the process without a traceback.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_DFL)


def _run(module: str) -> bool:
    with told_of_no_memory("the work of this command", MORE_MEMORY):
        with interruptions():
            command = import_module(f"{__package__}.{module}")
        is_well: bool = command.run_command(sys.argv[1:])
        return is_well


run = partial(start, "distill")
predict = partial(start, "predict")
export = partial(start, "export")
report = partial(start, "report")
measure = partial(start, "measure")
search = partial(start, "search")
store = partial(start, "store")
