"""predictions.csv: what each network says of each test image."""

from distill_run.files import RunFiles, write_text
from distill_run.report.summary import Findings
from distill_run.safe_text import csv_lines


def write_predictions(findings: Findings) -> None:
    """Write predictions.csv into the run's directory, whole or not at all."""
    write_text(RunFiles(findings.report.run_dir).predictions, predictions(findings))


def predictions(findings: Findings) -> str:
    """A row for each test image, below a header: its path or index, its class, and each network's decision.

    Beside a decision stands its confidence: the largest softmax probability, a fraction.
    """
    test, classes = findings.feed.test, findings.feed.classes
    columns = [[test.name(index) for index in range(len(test))], [classes[target] for target in test.targets.tolist()]]
    heading = ["image", "target"]
    for stage, trained in findings.networks.items():
        confidences, decisions = trained.selected.test_logits.double().softmax(1).max(1)
        columns.append([classes[decision] for decision in decisions.tolist()])
        columns.append([f"{confidence:.4f}" for confidence in confidences.tolist()])
        heading += [stage, f"{stage}_confidence"]
    return csv_lines([heading, *zip(*columns, strict=True)])
