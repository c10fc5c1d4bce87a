"""Architectures: one file a family. A constructor takes in_channels, image_size and num_classes from the dataset."""
