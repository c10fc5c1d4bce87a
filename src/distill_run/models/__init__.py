"""Architectures, one file for each family; the dataset decides in_channels, image_size and num_classes."""
