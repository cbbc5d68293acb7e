"""Who augments a batch strongly: ours, torchvision v2, Kornia and Albumentations."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import kornia.augmentation.auto as kornia_policies
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

from augloader import AdaptiveStrengthTransform
from augloader.augment.pixels import fused
from augloader.augment.pixels.dense import apply_dense
from augloader.augment.pixels.geometry import compose
from augloader.augment.policies import Params

Call = Callable[[], object]

# Name: torchvision's and Kornia's.
POLICIES: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "trivial": (v2.TrivialAugmentWide, kornia_policies.TrivialAugment),
    "rand": (partial(v2.RandAugment, 2, 9), partial(kornia_policies.RandAugment, 2, 9)),
    "auto": (v2.AutoAugment, kornia_policies.AutoAugment),
}
OURS, TENSOR, PIL, KORNIA = "ours", "torchvision tensor", "torchvision PIL", "Kornia"
ALBUMENTATIONS = "Albumentations"
FLOOR, COPY = "stack + to float", "copy"
# Bytes that a channel value moves at least, for each dtype of the output: it is read once (and in a
# fifth of the rows once more, for statistics), and written once.
FLOOR_BYTES = {torch.uint8: 2.2, torch.bfloat16: 3.2, torch.float32: 5.2}
COPIED_BYTES = 2**29


def make_images(batch: int, side: int) -> Tensor:
    """Return smooth random fields plus noise, (batch, 3, side, side) uint8."""
    generator = torch.Generator().manual_seed(0)
    field = torch.rand(batch, 3, 8, 8, generator=generator)
    smooth = F.interpolate(field, (side, side), mode="bicubic")
    noise = 0.05 * torch.randn(batch, 3, side, side, generator=generator)
    return smooth.add(noise).clamp(0, 1).mul(255).to(torch.uint8)


def to_float(images: Tensor) -> Tensor:
    return images.to(torch.float32).mul_(1 / 255)


def augment_tensors(transform: Callable[[Any], Any], images: list[Tensor]) -> Tensor:
    return to_float(torch.stack([transform(image) for image in images]))


def augment_pil(transform: Callable[[Any], Any], images: list[Any]) -> Tensor:
    return to_float(torch.stack([TF.pil_to_tensor(transform(image)) for image in images]))


def augment_arrays(transform: Callable[..., Any], images: list[Any]) -> Tensor:
    out = np.stack([transform(image=image)["image"] for image in images])
    return to_float(torch.from_numpy(out).permute(0, 3, 1, 2).contiguous())


def albumentations_policy(policy: str) -> Callable[[Any], Any] | None:
    """Return its nearest to the policy, of 14 operations; None where it has none."""
    if policy == "auto" or find_spec("albumentations") is None:
        return None
    A = import_module("albumentations")
    import_module("cv2").setNumThreads(torch.get_num_threads())
    wide, one, still = (0.01, 1.99), (1.0, 1.0), (0.0, 0.0)
    nearest: dict[str, Any] = {"interpolation": 0, "p": 1}
    ops = [A.NoOp(p=1), A.Rotate((-135, 135), **nearest)]
    for axis, other in ("xy", "yx"):
        ops.append(A.Affine(shear={axis: (-44.7, 44.7), other: still}, **nearest))
        ops.append(A.Affine(translate_px={axis: (-32, 32), other: (0, 0)}, **nearest))
    ops += [
        A.ColorJitter(wide, one, one, still, p=1),
        A.ColorJitter(one, wide, one, still, p=1),
        A.ColorJitter(one, one, wide, still, p=1),
        A.Sharpen(p=1),
        A.Posterize((2, 7), p=1),
        A.Solarize((0.0, 1.0), p=1),
        A.AutoContrast(method="pil", p=1),
        A.Equalize(mode="pil", p=1),
    ]
    some = A.OneOf(ops, p=1) if policy == "trivial" else A.SomeOf(ops, n=2, replace=True, p=1)
    made: Callable[[Any], Any] = A.Compose([some])
    return made


def cpu_calls(policy: str, images: Tensor) -> dict[str, Call]:
    """Return who augments the images, and what ours spends on parts of it."""
    rows = list(images)
    pil = [TF.to_pil_image(row) for row in rows]
    arrays = [np.ascontiguousarray(row.permute(1, 2, 0).numpy()) for row in rows]
    ours = AdaptiveStrengthTransform(policy, dtype=torch.float32)
    whole = AdaptiveStrengthTransform(policy)
    bilinear = AdaptiveStrengthTransform(policy, dtype=torch.float32, interpolation="bilinear")
    strength = torch.rand(len(images), generator=torch.Generator().manual_seed(1))
    single, theirs = (make() for make in POLICIES[policy])
    calls: dict[str, Call] = {
        OURS: lambda: ours(images, 1.0),
        KORNIA: lambda: theirs(to_float(images)),
        TENSOR: lambda: augment_tensors(single, rows),
        PIL: lambda: augment_pil(single, pil),
    }
    albumentations = albumentations_policy(policy)
    if albumentations is not None:
        calls[ALBUMENTATIONS] = partial(augment_arrays, albumentations, arrays)
    return calls | {
        "ours, random strengths": lambda: ours(images, strength),
        "ours, bilinear": lambda: bilinear(images, 1.0),
        "ours, uint8 output": lambda: whole(images, 1.0),
        "ours, sampling alone": lambda: ours.sample(images.shape, 1.0),
        FLOOR: lambda: to_float(torch.stack(rows)),
    }


def cuda_calls(policy: str, images: Tensor) -> dict[str, Call]:
    """Return who augments the images on their CUDA device.

    Ours as a whole draws on the CPU and copies the parameters; its kernels alone, and the compiled
    function, find one draw on the device.
    """
    strength = torch.rand(len(images), generator=torch.Generator().manual_seed(1))
    source = torch.empty(COPIED_BYTES, dtype=torch.uint8, device=images.device)
    target = torch.empty_like(source)
    theirs = POLICIES[policy][1]()
    default = AdaptiveStrengthTransform(policy, dtype=torch.float32)
    bilinear = AdaptiveStrengthTransform(policy, dtype=torch.float32, interpolation="bilinear")
    params = default.sample(images.shape, 1.0)
    assert isinstance(params, Params)
    op, magnitude = params.op[:, 0], params.magnitude[:, 0]
    theta = compose(op, magnitude, *images.shape[2:])[:, :2].float()
    drawn = tuple(part.to(images.device) for part in (op, magnitude, theta))
    compiled = torch.compile(dense_to_float, fullgraph=True, dynamic=False)
    calls: dict[str, Call] = {
        OURS: lambda: default(images, 1.0),
        KORNIA: lambda: theirs(to_float(images)),
        "ours, random strengths": lambda: default(images, strength),
        "ours, bilinear": lambda: bilinear(images, 1.0),
        "ours, sampling alone": lambda: default.sample(images.shape, 1.0),
        "dense, compiled": lambda: compiled(images, *drawn),
        "dense, not compiled": lambda: dense_to_float(images, *drawn),
        COPY: lambda: target.copy_(source),
    }
    for dtype in FLOOR_BYTES:
        if dtype != torch.float32:
            typed = AdaptiveStrengthTransform(policy, dtype=None if dtype == torch.uint8 else dtype)
            calls[whole_name(dtype)] = partial(typed, images, 1.0)
        calls[kernels_name(dtype)] = partial(fused.apply_fused, images, *drawn, dtype=dtype)
    return calls


def dense_to_float(images: Tensor, op: Tensor, magnitude: Tensor, theta: Tensor) -> Tensor:
    return to_float(apply_dense(images, op, magnitude, theta))


def whole_name(dtype: torch.dtype) -> str:
    return OURS if dtype == torch.float32 else f"ours, {str(dtype).removeprefix('torch.')}"


def kernels_name(dtype: torch.dtype) -> str:
    return f"kernels alone, {str(dtype).removeprefix('torch.')}"
