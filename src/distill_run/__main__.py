"""`python -m distill_run`: the same as the command `distill-run`."""

from distill_run.commands.run import main

if __name__ == "__main__":
    main()
