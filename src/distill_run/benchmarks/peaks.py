"""What GPUs can do at most, in FLOP/s of dense products, and how many a training needs for an image."""

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

# TFLOP/s without sparsity; fp32 is that of the CUDA cores, tf32, bf16 and fp16 that of the tensor cores. From NVIDIA's
# data sheets "H100 Tensor Core GPU" (SXM5), "H200 Tensor Core GPU", "A100 Tensor Core GPU", "L4 Tensor Core GPU" and
# "T4 Tensor Core GPU", whose figures with an asterisk are twice as large, with sparsity. A T4 has no TF32 and no bf16.
PEAKS = {
    "NVIDIA H100 80GB HBM3": {"fp32": 67, "tf32": 494.5, "bf16": 989.5, "fp16": 989.5},
    "NVIDIA H200": {"fp32": 67, "tf32": 494.5, "bf16": 989.5, "fp16": 989.5},
    "NVIDIA A100": {"fp32": 19.5, "tf32": 156, "bf16": 312, "fp16": 312},
    "NVIDIA L4": {"fp32": 30.3, "tf32": 60, "bf16": 121, "fp16": 121},
    "Tesla T4": {"fp32": 8.1, "fp16": 65},
}


def peak_flops(name: str, precision: str) -> float | None:
    """The most FLOP/s of a GPU, by the name that torch gives it; None where the table does not have it."""
    for known, peaks in PEAKS.items():
        if name == known or name.startswith((f"{known}-", f"{known} ")):  # A100-SXM4-80GB, A100 80GB PCIe
            return 1e12 * peaks[precision] if precision in peaks else None
    return None


def flops_of(network: nn.Module, images: Tensor, *, learns: bool) -> int:
    """The FLOPs of a forward pass of these images and, for a network that learns, of the backward pass.

    Those of convolutions and matrix products, as torch counts them: two for each multiply-add.
    """
    with torch.set_grad_enabled(learns), FlopCounterMode(display=False) as counter:
        logits = network(images)
        if learns:
            logits.sum().backward()
    flops: int = counter.get_total_flops()
    return flops
