"""Small steps that several losses share: wider numbers, vectors of length 1, features as maps."""

from math import inf

from torch import Tensor, float32, promote_types
from torch.linalg import vector_norm


def wide(values: Tensor) -> Tensor:
    """The values in float32, or in their own type if that is wider.

    In half precision a softmax loses the small probabilities that a teacher passes on, and sums of squares overflow.
    """
    return values.to(promote_types(values.dtype, float32))


def unit_rows(vectors: Tensor) -> Tensor:
    """Vectors (..., D) divided by their lengths. A vector of zeros has no direction: it stays, without a gradient."""
    lengths = vector_norm(vectors, dim=-1, keepdim=True)
    # F.normalize divides by a tiny number instead, which would give such a vector a gradient of 1e12.
    units: Tensor = vectors / lengths.where(lengths > 1e-12, inf)
    return units


def as_maps(features: Tensor) -> Tensor:
    """Features as maps: (N, C, H, W) stay as they are, vectors (N, C) become maps of 1x1."""
    return features if features.ndim == 4 else features[:, :, None, None]
