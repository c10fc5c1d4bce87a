"""The report of a sweep: sweep.json, sweep.csv, sweep.html, sweep.md and a plot."""
