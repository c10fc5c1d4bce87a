"""The run directory: who writes into it while a run goes on, and the run's status."""
