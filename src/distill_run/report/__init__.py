"""What a run found out: report.json for programs, report.md and report.html for people, plots for both."""
