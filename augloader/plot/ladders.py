"""Pictures of strengths: over epochs, and of one image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from augloader.augment.pixels.ops import IDENTITY, OPS
from augloader.augment.policies import Params
from augloader.augment.transform import AdaptiveStrengthTransform
from augloader.core.checks import require_finite, require_int
from augloader.plot.pixels import show, to_pixels
from augloader.summary import number


def strengths(history: Sequence[Tensor] | Tensor) -> Figure:
    """Draw how the samples' strengths spread over the epochs.

    Args:
        history: for every epoch the (n,) floating strengths in [0, 1]: ``sampler.strengths``, kept
            after each ``set_epoch``.

    Returns:
        A figure with one axes: median, middle half and middle 90 % of the samples.

    Raises:
        TypeError: strengths that are not floating.
        ValueError: no epoch, no sample, epochs of different length, values outside [0, 1].

    Cost: O(n) an epoch.

    Example:
        >>> figure = strengths([torch.tensor([0.0, 0.5, 0.6]), torch.tensor([0.2, 0.8, 1.0])])
        >>> figure.axes[0].lines[0].get_ydata().round(2).tolist()
        [0.5, 0.8]
    """
    if not len(history):
        raise ValueError(
            "history must be the strengths of at least one epoch, got none. Keep sampler.strengths "
            "after each set_epoch."
        )
    found = [_strengths(epoch, values, len(history[0])) for epoch, values in enumerate(history)]
    over = np.stack([np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95)) for values in found], 1)
    epochs = range(len(found))
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for low, high, shade, what in ((0, 4, 0.2, "middle 90 %"), (1, 3, 0.4, "middle half")):
        axes.fill_between(
            epochs, over[low], over[high], color="C0", alpha=shade, linewidth=0, label=what
        )
    axes.plot(epochs, over[2], color="C0", marker=".", label="median")
    axes.set(ylim=(-0.03, 1.03), xlabel="epoch", ylabel="strength")
    axes.set_title(f"Strengths of {len(found[0]):,} samples", fontsize=10)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def strength_ladder(
    transform: AdaptiveStrengthTransform,
    image: Any,
    *,
    steps: int = 7,
    draws: int = 3,
    keys: Tensor | None = None,
) -> Figure:
    """Draw one image at strengths from 0 to 1, with the same random numbers along each row.

    Args:
        transform: any policy, Kornia operations too; its own random state is not touched. Images
            that it normalises are shown as they were before that.
        image: (C, H, W) of 1 or 3 channels, uint8 or floating in [0, 1]; or one of PIL's.
        steps: number of strengths, at least 2.
        draws: number of rows, each with random numbers of its own.
        keys: (rows, k) integer, whose random numbers, as ``batch.keys[:3]``: just what these draws
            are given at each strength. None makes some, for ``draws`` rows.

    Returns:
        A figure with an axes for each image; the operations at strength 1 on the left, where the
        policy is a single chain of named ones.

    Raises:
        TypeError: an image or keys of a wrong type, a transform that is none.
        ValueError: values or shapes other than these.

    Cost: steps x draws augmentations of one image.

    Example:
        >>> from augloader import AdaptiveStrengthTransform
        >>> image = torch.rand(3, 16, 16)
        >>> figure = strength_ladder(AdaptiveStrengthTransform("trivial"), image, steps=3, draws=2)
        >>> [axes.get_title() for axes in figure.axes]
        ['0', '0.5', '1', '', '', '']
        >>> shown = figure.axes[0].images[0].get_array()
        >>> bool(np.allclose(shown, image.permute(1, 2, 0)))
        True
    """
    require_int("steps", steps, 2, "7 shows what lies between 0 and 1.")
    require_int("draws", draws, 1, "Draw at least one row.")
    if not isinstance(transform, AdaptiveStrengthTransform):
        raise TypeError(
            f"transform must be an AdaptiveStrengthTransform, got {transform!r}. Others know no "
            "strength."
        )
    pixels = to_pixels(image, "image")
    if not isinstance(image, Tensor):
        image = torch.from_numpy(np.atleast_3d(pixels)).permute(2, 0, 1).contiguous()
    if keys is None:
        keys = torch.stack([torch.zeros(draws, dtype=torch.int64)] * 2 + [torch.arange(draws)], 1)
    if not isinstance(keys, Tensor) or keys.ndim != 2 or not len(keys):
        raise ValueError(
            f"keys must be a (rows, k) tensor, got {keys}. Pass for example batch.keys[:3]."
        )
    picked = torch.linspace(0, 1, steps).tolist()
    high, wide = image.shape[-2:]
    inches = 1.2 / max(high, wide)  # a pixel
    size = max(4.0, (steps + 0.9) * wide * inches), len(keys) * high * inches + 0.7
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(keys), steps, squeeze=False)
    for row, key in enumerate(keys):
        for column, strength in enumerate(picked):
            axes = grid[row, column]
            out = _unnormalised(transform, transform(image, strength, keys=key))
            show(axes, to_pixels(out, "the transform's output"))
            axes.set(xticks=[], yticks=[])
            if row == 0:
                axes.set_title(number(strength), fontsize=9)
        params = transform.sample(image.shape, 1.0, keys=key)
        grid[row, 0].set_ylabel(_operations(params), fontsize=7)
    figure.suptitle("One image at strengths from 0 to 1, a row for each draw", fontsize=10)
    return figure


def _strengths(epoch: int, values: Tensor, n: int) -> np.ndarray[Any, Any]:
    """Return an epoch's strengths, or raise what is wrong with them."""
    name = f"history[{epoch}]"
    if not isinstance(values, Tensor) or not values.is_floating_point():
        got = values.dtype if isinstance(values, Tensor) else type(values).__name__
        raise TypeError(f"{name} must be a floating tensor, got {got}. Keep sampler.strengths.")
    if values.shape != (n,) or not n:
        raise ValueError(
            f"{name} must have shape ({max(n, 1)},), got {tuple(values.shape)}. Keep the strengths "
            "of all samples for every epoch."
        )
    require_finite(name, values, "Keep sampler.strengths.")
    low, high = float(values.min()), float(values.max())
    if not 0 <= low <= high <= 1:
        raise ValueError(
            f"{name} must be in [0, 1], got values from {low:g} to {high:g}. Keep "
            "sampler.strengths."
        )
    return values.detach().cpu().double().numpy()


def _operations(params: Any) -> str:
    """Name the operations of a single chain, one a line."""
    if not isinstance(params, Params) or params.boxes is not None or params.op.shape[1] != 1:
        return ""
    names = [OPS[op] for op in params.op[0, 0].tolist() if op != IDENTITY]
    return "\n".join(names) or "Identity"


def _unnormalised(transform: AdaptiveStrengthTransform, image: Tensor) -> Tensor:
    """Return the transform's output before normalisation."""
    output = transform.output
    if not output.normalised:
        return image
    mean, std = (
        torch.tensor(part).view(-1, 1, 1).to(image.device) for part in (output.mean, output.std)
    )
    return (image.float() * std + mean).clamp(0, 1)
