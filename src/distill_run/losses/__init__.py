"""The mathematics of distillation: pure functions of tensors."""
