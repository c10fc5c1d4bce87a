"""Trackers that people use: watchers that send the figures of a run to TensorBoard, Weights & Biases or MLflow."""
