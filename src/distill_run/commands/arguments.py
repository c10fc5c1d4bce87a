"""Arguments of the smaller commands, whose mistakes are told as everything else's."""

import argparse
from typing import NoReturn

from distill_run.errors import user_error


class Parser(argparse.ArgumentParser):
    """An argument parser that raises UserError instead of ending the program."""

    def error(self, message: str) -> NoReturn:
        """Tell a mistake in the program's two lines."""
        self.color = False  # which Python 3.14 gives the usage on a terminal
        usage = " ".join(self.format_usage().split())
        raise user_error(message, f"write {usage.removeprefix('usage: ')}")
