"""Placeholder: being written."""

from distill_run.report.summary import Findings


def write_pages(findings: Findings) -> None:
    """Being written."""
