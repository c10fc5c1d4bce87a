"""From the CPU to the device that trains, without waiting for it."""

import torch
from torch import Tensor


def send(values: Tensor, device: torch.device) -> Tensor:
    """The values on a device; a GPU takes them from pinned memory when it comes to it, and is not waited for."""
    is_gpu = device.type == "cuda"
    if is_gpu and values.device.type == "cpu":
        values = values.pin_memory()
    return values.to(device, non_blocking=is_gpu)
