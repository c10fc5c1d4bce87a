"""Measurements against the way that most programs work: `python -m distill_run.benchmarks.loop`, `... .sweep`."""
