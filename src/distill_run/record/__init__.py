"""The run directory: what it holds and how its files are named."""
