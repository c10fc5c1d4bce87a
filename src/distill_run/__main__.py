"""`python -m distill_run`: the same as the command `distill-run`."""

from distill_run.commands.installed import run

if __name__ == "__main__":
    run()
