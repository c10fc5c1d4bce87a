"""`torchrun -m distill_run ...`: the first process does what its command says, the others do their part in its run.

No torch at module level, as in distill.py.
"""

import logging
import os
import sys
import time

from distill_run.errors import LostProcessError, UserError

FIRST_TELLS_SECONDS = 10.0  # in which torchrun ends this process, if the first one has failed as well


def follow_first() -> bool:
    """Do the part of a process that is not the first, then end it.

    An error is told some seconds later, so that a mistake that all processes find is told by the first one alone.
    """
    from distill_run.engine.launch import found_processes  # loaded only here: they need torch
    from distill_run.pipeline import follow_found

    try:
        follow_found(found_processes())
    except LostProcessError:
        os._exit(1)
    except UserError:
        time.sleep(FIRST_TELLS_SECONDS)
        raise
    end_together()
    return True


def end_together() -> None:
    """End this process with the others, now that all is written: torch may abort one that leaves the group itself."""
    from distill_run.engine.launch import found_processes

    found_processes().any_of(False)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
