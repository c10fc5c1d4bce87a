"""Knowledge distillation for image classification: one command from teacher to report."""

__version__ = "0.1.0"
