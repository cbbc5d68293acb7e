"""Kornia augmentations with one strength per image."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import kornia.augmentation as K
import numpy as np
import torch
from torch import Tensor

from augloader.checks import count_and_first

_Neutral = Mapping[str, float | str]
_COLOR = {"brightness_factor": 1, "contrast_factor": 1, "saturation_factor": 1, "hue_factor": 0}
# Kornia class -> {random parameter: its neutral value, or the name of the parameter that holds it}.
# No entry: the operation has no magnitude and is applied with probability equal to the strength.
_SUPPORTED: dict[type[K.AugmentationBase2D], _Neutral] = {
    K.ColorJiggle: _COLOR,
    K.ColorJitter: _COLOR,
    K.RandomAffine: {"translations": 0, "scale": 1, "angle": 0, "shear_x": 0, "shear_y": 0},
    K.RandomBrightness: {"brightness_factor": 1},
    K.RandomContrast: {"contrast_factor": 1},
    K.RandomElasticTransform: {"noise": 0},
    K.RandomErasing: {"widths": 0, "heights": 0},
    K.RandomGamma: {"gamma_factor": 1, "gain_factor": 1},
    K.RandomGaussianBlur: {"sigma": 1e-6},  # above 0, so that the kernel stays finite
    K.RandomGaussianIllumination: {"gradient": 0},
    K.RandomGaussianNoise: {"gaussian_noise": 0},
    K.RandomHue: {"hue_factor": 0},
    K.RandomLinearCornerIllumination: {"gradient": 0},
    K.RandomLinearIllumination: {"gradient": 0},
    K.RandomPerspective: {"end_points": "start_points"},
    K.RandomPlasmaBrightness: {"intensity": 0},
    K.RandomPlasmaContrast: {"plasma": 0.25},  # the contrast is 4 · plasma
    K.RandomPlasmaShadow: {"shade_intensity": 0},
    K.RandomPosterize: {"bits_factor": 8},
    K.RandomRGBShift: {"r_shift": 0, "g_shift": 0, "b_shift": 0},
    K.RandomRotation: {"degrees": 0},
    K.RandomSaturation: {"saturation_factor": 1},
    K.RandomSharpness: {"sharpness": 1},  # 0 is the most blurred
    K.RandomShear: {"shear_x": 0, "shear_y": 0},
    K.RandomSnow: {"brightness": 1},
    K.RandomSolarize: {"thresholds": 256 / 255, "additions": 0},  # 1 would invert white pixels
    K.RandomThinPlateSpline: {"dst": "src"},
    K.RandomTranslate: {"translate_x": 0, "translate_y": 0},
    K.RandomAutoContrast: {},
    K.RandomBoxBlur: {},
    K.RandomChannelShuffle: {},
    K.RandomClahe: {},
    K.RandomEqualize: {},
    K.RandomFisheye: {},
    K.RandomGrayscale: {},
    K.RandomHorizontalFlip: {},
    K.RandomInvert: {},
    K.RandomJPEG: {},
    K.RandomMedianBlur: {},
    K.RandomPlanckianJitter: {},
    K.RandomRain: {},
    K.RandomRotation90: {},
    K.RandomSaltAndPepperNoise: {},
    K.RandomVerticalFlip: {},
}
_SHARED = {"order", "forward_input_shape"}  # Kornia parameters that are not one entry per row
_DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class _Params:
    """For each operation, the rows to change (int64, ascending) and these rows' parameters."""

    batch_shape: tuple[int, ...]
    steps: tuple[tuple[Tensor, dict[str, Tensor]], ...]


class AdaptiveStrengthTransform:
    """Apply Kornia augmentations to a batch, each image with its own strength in [0, 1].

    Every random parameter θ of a row is moved from its neutral value θ₀ by the row's strength s:
    θ' = θ₀ + s·(θ − θ₀). Strength 0 leaves the row as it is, bit for bit; strength 1 is the Kornia
    operation itself. An operation without a magnitude (a flip, say) is applied with probability s.
    Kornia's own ``p``, often 0.5 by default, still chooses the rows an operation may change.

    Random numbers come from a private CPU generator made from ``seed``, in a ``DataLoader`` worker
    from ``seed`` and the worker's seed. They depend neither on the strengths nor on the images'
    device. Torch's global CPU generator is borrowed to draw and then restored, so another thread
    must not draw from it meanwhile. Pixel ranges are not checked: Kornia's colour operations
    assume [0, 1] and mostly clamp to it, geometric operations take any values.

    Args:
        *operations: Kornia 2D augmentations, applied in this order; the transform keeps copies.
        seed: Seed of the private generator, at least 0.

    Raises:
        TypeError: An operation is not supported, or ``seed`` is not an int.
        ValueError: No operation, one with ``same_on_batch=True``, or a negative ``seed``.

    Cost:
        That of the Kornia operations on the rows they change, a copy of these rows for each
        operation, and a copy of the batch. Types other than float64 are computed in float32.

    Example:
        >>> import kornia.augmentation as K
        >>> strong = AdaptiveStrengthTransform(K.RandomAffine(30.0, p=1.0), K.ColorJitter(0.4))
        >>> images = torch.rand(2, 3, 8, 8)
        >>> out = strong(images, torch.tensor([0.0, 0.7]))
        >>> torch.equal(out[0], images[0]), torch.equal(out[1], images[1])
        (True, False)

    Source:
        SADA (Yang et al. 2025), as publicly described: one random operation a sample, its
        magnitude the strength × the operation's maximum. Here every operation is applied.
    """

    def __init__(self, *operations: K.AugmentationBase2D, seed: int = 0) -> None:
        """See the class."""
        if not operations:
            raise ValueError(
                "operations must be at least one Kornia augmentation, got none. "
                "Pass for example kornia.augmentation.RandomAffine(30.0)."
            )
        if not isinstance(seed, int) or isinstance(seed, bool):
            raise TypeError(f"seed must be an int, got {seed!r}. Pass for example seed=0.")
        if seed < 0:
            raise ValueError(f"seed must be at least 0, got {seed}. Pass for example seed=0.")
        self._neutral = [_neutral(op, f"operations[{i}]") for i, op in enumerate(operations)]
        # Kornia draws on the module's device and keeps the last parameters in the module.
        self._operations = [copy.deepcopy(op).cpu() for op in operations]
        self._seed = seed
        # Of the own generator; torch cannot send a Generator itself to spawned workers.
        self._state: Tensor | None = None
        self._worker_seed: int | None = None  # the worker that the state was made for

    def __repr__(self) -> str:
        """Return the operations and the seed."""
        return f"{type(self).__name__}({', '.join(map(repr, self._operations))}, seed={self._seed})"

    def __call__(
        self, images: Tensor, strength: Tensor | float, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return ``apply(images, sample(images.shape, strength, generator))``."""
        _check_images(images)
        return self.apply(images, self.sample(images.shape, strength, generator))

    def sample(
        self,
        batch_shape: Sequence[int],
        strength: Tensor | float,
        generator: torch.Generator | None = None,
    ) -> _Params:
        """Draw every operation's parameters and move them from neutral by the strength.

        Args:
            batch_shape: Shape of the images, (B, C, H, W) or (C, H, W).
            strength: In [0, 1]; floating of shape (B,) on any device, or one number for all rows.
            generator: CPU generator to draw from; None is the transform's own.

        Returns:
            Parameters for ``apply``, on the CPU and picklable.

        Raises:
            TypeError: ``strength`` or ``generator`` has a wrong type.
            ValueError: ``batch_shape`` or ``strength`` has a wrong shape or value.
        """
        shape = tuple(batch_shape)
        if len(shape) not in (3, 4):
            raise ValueError(
                f"batch_shape must be (B, C, H, W) or (C, H, W), got {shape}. Pass images.shape."
            )
        values = _check_strength(strength, shape[:-3])
        shape = (len(values), *shape[-3:])
        if generator is None:
            state = self._own_state()
        elif isinstance(generator, torch.Generator) and generator.device.type == "cpu":
            state = generator.get_state()
        else:
            raise TypeError(
                f"generator must be a torch.Generator on the CPU, got {generator!r}. "
                "Pass for example torch.Generator().manual_seed(0)."
            )
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(state)
            draws = [
                (op.forward_parameters(shape), torch.rand(shape[0], device="cpu"))
                for op in self._operations
            ]
            state = torch.get_rng_state()
        if generator is None:
            self._state = state
        else:
            generator.set_state(state)
        steps = (
            _step(drawn, uniform, values, neutral)
            for (drawn, uniform), neutral in zip(draws, self._neutral, strict=True)
        )
        return _Params(shape, tuple(steps))

    def apply(self, images: Tensor, params: _Params) -> Tensor:
        """Apply sampled parameters to images; the same parameters give the same pixels.

        Args:
            images: Shape (B, C, H, W) or (C, H, W), on any device; uint8, or floating (usually in
                [0, 1]). Never modified.
            params: What ``sample`` returned for this shape.

        Returns:
            A new tensor of the images' shape, dtype and device. Rows that no operation changes are
            copied bit for bit; uint8 rows are computed as float32 / 255 and rounded at the end.

        Raises:
            TypeError: ``images`` has a wrong type.
            ValueError: ``images`` has a wrong shape, or another one than the parameters are for.
        """
        _check_images(images)
        out = images.clone()
        batch = out if out.ndim == 4 else out.unsqueeze(0)  # a view: writing to it fills out
        if batch.shape != params.batch_shape:
            raise ValueError(
                f"images must have the shape that params are for, {params.batch_shape}, "
                f"got {tuple(batch.shape)}. Call sample(images.shape, strength)."
            )
        mask = torch.zeros(len(batch), dtype=torch.bool)
        for rows, _ in params.steps:
            mask[rows] = True
        changed = mask.nonzero().flatten()
        index = changed.to(images.device)
        work = batch[index].to(torch.promote_types(images.dtype, torch.float32))
        if images.dtype == torch.uint8:
            work = work / 255
        for op, (rows, values) in zip(self._operations, params.steps, strict=True):
            if len(rows) > 0:
                at = torch.searchsorted(changed, rows).to(images.device)
                # Kornia moves the parameters to the images' device, and keeps the dict.
                work = work.index_copy(0, at, op(work[at], params=dict(values)))
        if images.dtype == torch.uint8:
            work = (work * 255).round().clamp(0, 255)
        batch.index_copy_(0, index, work.to(images.dtype))
        return out

    def _own_state(self) -> Tensor:
        """Return the state of this process's generator; workers make their own, not a copy."""
        info = torch.utils.data.get_worker_info()
        worker_seed = None if info is None else info.seed
        if self._state is None or worker_seed != self._worker_seed:
            entropy = [self._seed] if worker_seed is None else [self._seed, worker_seed]
            hashed = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
            self._state = torch.Generator().manual_seed(int(hashed[0])).get_state()
            self._worker_seed = worker_seed
        return self._state


def _neutral(op: object, name: str) -> _Neutral:
    """Return the neutral values of an operation's parameters, empty where it has no magnitude."""
    found = next((_SUPPORTED[cls] for cls in type(op).__mro__ if cls in _SUPPORTED), None)
    if found is None:
        raise TypeError(
            f"{name} must be a supported Kornia augmentation, got {type(op).__name__}. "
            f"Use one of {', '.join(sorted(cls.__name__ for cls in _SUPPORTED))}."
        )
    if getattr(op, "same_on_batch", False):
        raise ValueError(
            f"{name} must draw parameters for every row, got same_on_batch=True. "
            "Pass same_on_batch=False."
        )
    return found


def _step(
    drawn: dict[str, Tensor], uniform: Tensor, strength: Tensor, neutral: _Neutral
) -> tuple[Tensor, dict[str, Tensor]]:
    """Choose the rows that an operation changes, and move their parameters toward neutral."""
    wanted = strength > 0 if neutral else uniform < strength
    rows = (wanted & drawn["batch_prob"].bool()).nonzero().flatten()
    values = {key: value if key in _SHARED else value[rows] for key, value in drawn.items()}
    for key, rest in neutral.items():
        if key in values:
            start = values[rest] if isinstance(rest, str) else torch.tensor(rest)
            values[key] = _lerp(start, values[key], strength[rows])
    return rows, values


def _lerp(start: Tensor, end: Tensor, strength: Tensor) -> Tensor:
    """Return start + strength·(end − start) by row in the dtype of end, exact at 0 and at 1."""
    dtype = torch.promote_types(end.dtype, torch.float32)
    weight = strength.to(dtype).view(-1, *[1] * (end.ndim - 1))
    moved = torch.lerp(start.to(dtype).expand_as(end), end.to(dtype), weight)
    return (moved if end.is_floating_point() else moved.round()).to(end.dtype)


def _kind(value: object) -> str:
    """Return the dtype of a tensor, the class of anything else."""
    return str(value.dtype) if isinstance(value, Tensor) else type(value).__name__


def _check_images(images: Tensor) -> None:
    """Raise unless images are a batch or an image of a supported type."""
    if not isinstance(images, Tensor) or images.dtype not in _DTYPES:
        raise TypeError(
            f"images must be a uint8 or floating tensor, got {_kind(images)}. Convert them first."
        )
    if images.ndim not in (3, 4):
        raise ValueError(
            f"images must be (B, C, H, W) or (C, H, W), got shape {tuple(images.shape)}. "
            "Add or remove dimensions."
        )


def _check_strength(strength: Tensor | float, batch: tuple[int, ...]) -> Tensor:
    """Return every row's strength as float32 on the CPU; ``batch`` is (B,), or () for one image."""
    number = isinstance(strength, (int, float)) and not isinstance(strength, bool)
    if not number and not (isinstance(strength, Tensor) and strength.is_floating_point()):
        raise TypeError(
            f"strength must be a float or a floating tensor, got {_kind(strength)}. "
            "Convert it first."
        )
    values = torch.as_tensor(strength, dtype=torch.float32, device="cpu").detach()
    if values.ndim > 0 and values.shape != batch:
        raise ValueError(
            f"strength must be one number or of shape {batch}, got shape {tuple(values.shape)}. "
            "Pass one strength per image."
        )
    bad = ~((values >= 0) & (values <= 1))
    if bad.any():
        got = count_and_first(bad, "values outside") if values.ndim else values.item()
        raise ValueError(f"strength must be in [0, 1], got {got}. Clamp or rescale it.")
    return values.expand(batch or (1,))
