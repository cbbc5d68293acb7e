"""Kornia's augmentations with one strength a row: the parameters are moved toward neutral."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import kornia.augmentation as K
import torch
from torch import Tensor

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


@dataclass(frozen=True)
class KorniaParams:
    """For each operation, the rows to change (int64, ascending) and these rows' parameters.

    ``geometric`` says whether any of the operations moves pixels.
    """

    shape: tuple[int, int, int, int]
    steps: tuple[tuple[Tensor, dict[str, Tensor]], ...]
    geometric: bool


class KorniaOperations:
    """Kornia 2D augmentations, applied one after the other, each row with its own strength.

    Every random parameter θ of a row is moved from its neutral value θ₀ by the row's strength s:
    θ' = θ₀ + s·(θ − θ₀). An operation without a magnitude (a flip, say) is applied with probability
    s. Kornia's own ``p`` still chooses the rows that an operation may change.

    Raises:
        TypeError: An operation is not supported.
        ValueError: No operation, or one with ``same_on_batch=True``.
    """

    def __init__(self, operations: Sequence[K.AugmentationBase2D]) -> None:
        if not operations:
            raise ValueError(
                "operations must be at least one Kornia augmentation, got none. "
                "Pass for example kornia.augmentation.RandomAffine(30.0)."
            )
        self._neutral = [_neutral(op, f"operations[{i}]") for i, op in enumerate(operations)]
        # Kornia draws on the module's device and keeps the last parameters in the module.
        self._operations = [copy.deepcopy(op).cpu() for op in operations]

    @property
    def geometric(self) -> bool:
        """Whether any operation moves pixels."""
        return not all(isinstance(op, K.IntensityAugmentationBase2D) for op in self._operations)

    def __repr__(self) -> str:
        """Return the operations."""
        return ", ".join(map(repr, self._operations))

    def draw(
        self, generator: torch.Generator, strength: Tensor, shape: tuple[int, int, int, int]
    ) -> KorniaParams:
        """Draw every operation's parameters and move them from neutral by the strength (B,).

        Torch's global CPU generator is borrowed to draw and then restored, as its default dtype is
        where that is not float32.
        """
        with torch.random.fork_rng(devices=[]), _usual(torch.device("cpu")):
            torch.set_rng_state(generator.get_state())
            draws = [
                (
                    op.forward_parameters(shape),
                    torch.rand(shape[0], dtype=torch.float32, device="cpu"),
                )
                for op in self._operations
            ]
            generator.set_state(torch.get_rng_state())
        steps = (
            _step(drawn, uniform, strength, neutral)
            for (drawn, uniform), neutral in zip(draws, self._neutral, strict=True)
        )
        return KorniaParams(shape, tuple(steps), self.geometric)

    def apply(self, images: Tensor, params: KorniaParams) -> Tensor:
        """Return a copy of (B, C, H, W) images with the drawn rows changed, in the same dtype.

        uint8 rows are computed as float32 / 255 and rounded once, at the end.
        """
        out = images.clone()
        mask = torch.zeros(len(out), dtype=torch.bool, device="cpu")
        for rows, _ in params.steps:
            mask[rows] = True
        changed = mask.nonzero().flatten()
        index = changed.to(images.device, non_blocking=True)
        work = out[index].to(torch.promote_types(images.dtype, torch.float32))
        if images.dtype == torch.uint8:
            work = work / 255
        for op, (rows, values) in zip(self._operations, params.steps, strict=True):
            if len(rows) > 0:
                at = torch.searchsorted(changed, rows).to(images.device, non_blocking=True)
                # Kornia moves the parameters to the images' device, and keeps the dict.
                with _usual(images.device):
                    work = work.index_copy(0, at, op(work[at], params=dict(values)))
        if images.dtype == torch.uint8:
            work = (work * 255).round().clamp(0, 255)
        return out.index_copy_(0, index, work.to(images.dtype))


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
            start = values[rest] if isinstance(rest, str) else _number(rest)
            values[key] = _lerp(start, values[key], strength[rows])
    return rows, values


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float32, device="cpu")


@contextmanager
def _usual(device: torch.device) -> Iterator[None]:
    """Make float32 and a device the defaults, which Kornia goes by; both are restored after."""
    dtype = torch.get_default_dtype()
    if dtype != torch.float32:
        torch.set_default_dtype(torch.float32)
    try:
        with device:
            yield
    finally:
        if dtype != torch.float32:
            torch.set_default_dtype(dtype)


def _lerp(start: Tensor, end: Tensor, strength: Tensor) -> Tensor:
    """Return start + strength·(end − start) by row in the dtype of end, exact at 0 and at 1."""
    dtype = torch.promote_types(end.dtype, torch.float32)
    weight = strength.to(dtype).view(-1, *[1] * (end.ndim - 1))
    moved = torch.lerp(start.to(dtype).expand_as(end), end.to(dtype), weight)
    return (moved if end.is_floating_point() else moved.round()).to(end.dtype)
