"""Knowledge distillation for image classification: one command from teacher to report."""
