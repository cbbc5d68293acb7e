"""Copies between the CPU and a device, for which the host waits once or not at all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def sent(x: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the CPU on a device; a GPU is not waited for."""
    if device.type != "cuda" or x.device.type != "cpu":
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)


def fetched(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return tensors of one device on the CPU; from a GPU in a single copy, one wait for all."""
    if all(x.device.type == "cpu" for x in tensors):
        return list(tensors)
    # The widest numbers first, so that each begins where its dtype may.
    order = sorted(range(len(tensors)), key=lambda i: -tensors[i].element_size())
    raw = [tensors[i].reshape(-1).view(torch.uint8) for i in order]
    parts = torch.cat(raw).cpu().split([len(part) for part in raw])
    found = {
        i: part.clone().view(tensors[i].dtype).reshape(tensors[i].shape)
        for i, part in zip(order, parts, strict=True)
    }
    return [found[i] for i in range(len(tensors))]
