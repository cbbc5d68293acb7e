"""Strong augmentation of a batch, each image with its own operations and its own strength."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import kornia.augmentation as K
import numpy as np
import torch
from torch import Tensor, nn
from torchvision import tv_tensors

from augloader.augment.images import (
    DTYPES,
    RangeCheck,
    laid_out_as,
    require_channels,
    require_fill,
    require_images,
)
from augloader.augment.kornia import KorniaOperations, KorniaParams
from augloader.augment.pixels.apply import Output, apply_params
from augloader.augment.pixels.geometry import Interpolation
from augloader.augment.policies import POLICIES, AugMix, Params, Policy
from augloader.augment.targets import follow, image_of
from augloader.core.batch import Sample
from augloader.core.checks import (
    kind,
    require_number,
    require_one_of,
    require_seed,
    require_strengths,
)
from augloader.core.keyed import uniforms
from augloader.core.lying import names_of

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class AdaptiveStrengthTransform(nn.Module):
    """Augment images by a policy, each image with its own operations, scaled by its own strength.

    Every magnitude m of a row is moved from the one that changes nothing, m₀, by the row's strength
    s in [0, 1]: m' = m₀ + s (m − m₀). Strength 0 leaves the row as it is, bit for bit; strength 1
    is the published policy. Operations without a magnitude are applied with probability s.

    ==========  ===============================================================================
    "trivial"   TrivialAugment (wide); options: num_magnitude_bins=31
    "rand"      RandAugment; num_ops=2, magnitude=9, num_magnitude_bins=31
    "auto"      AutoAugment; dataset="imagenet", "cifar10" or "svhn"
    "augmix"    AugMix; severity=3, mixture_width=3, chain_depth=-1, all_ops=True
    "cutout"    Cutout; size=0.5, the square's side as a share of the shorter one
    "erasing"   random erasing; scale=(0.02, 0.33), ratio=(0.3, 3.3)
    "perturb"   crop, flip, colour jitter and blur; crop=0.125, flip=0.5, jitter=0.4, blur=2
    ==========  ===============================================================================

    Operations, ranges and values are those of torchvision's transforms, on tensors. In a chain,
    colour comes before geometry, and the geometry of the whole chain is composed into one matrix
    and resampled once; torchvision resamples after each operation.

    In place of a name, Kornia's 2D augmentations can be given, or a list of them: they are applied
    one after the other, and Kornia's own ``p``, often 0.5 by default, still chooses the rows that
    an operation may change.

    Random numbers are drawn on the CPU, so they depend neither on the images' device nor on the
    strengths. They come from ``keys`` (best: a row's numbers then depend on the seed and on its own
    keys alone, not on the batch, the worker or the rank), else from an explicit ``generator``, else
    from a private one made from ``seed``, in a ``DataLoader`` worker from ``seed`` and the worker's
    seed. Torch's global generator is never touched; for Kornia operations it is borrowed to draw
    and then restored, so another thread must not draw from it meanwhile.

    It takes images and their strengths, or a ``Sample`` (a batch of the loader, or one image), and
    returns a Sample for a Sample: in ``nn.Sequential`` and torchvision's ``Compose`` it gets the
    batch, as the first part, and passes a Sample on. It is a module without parameters, buffers or
    state; ``eval()`` does not switch it off: strength 0 does.

    What lies on the images must move with them. Masks, boxes and points follow as tv_tensors (the
    default collate strips the type: wrap them again). Where the policy has geometry, anything else
    that lies on them raises: a tensor whose last dimensions are the images' height and width,
    another image, and tensors or lists under a key as "boxes", "keypoints" or "masks".

    Args:
        *policy: a name from the table, or Kornia augmentations, which are copied.
        seed: at least 0, below 2^64.
        interpolation: "nearest" or "bilinear"; None is the published one (bilinear for AugMix).
        fill: value outside the moved image and in cut-outs, one for all channels or one each, in
            the images' own units (0 to 255 for uint8).
        mask_fill: value outside the moved image of masks, as the loss's ``ignore_index``, often
            255; bool masks are False there.
        untouched: what stays in place though it lies on the images: keys, wherever they are, or
            paths of keys and positions, as "target", "extra.1" or "target.heat_map".
        mean: one a channel, or None. Given, the output is (x − mean) / std, x in [0, 1].
        std: one a channel, above 0, or None.
        dtype: floating dtype of the output, scaled to [0, 1]; or None: the images' own (float32
            with mean and std).
        **options: of the policy.

    Raises:
        TypeError: a wrong type, an unsupported Kornia operation, an option that the policy lacks.
        ValueError: an unknown policy, no operation, values out of range.

    Cost:
        A few passes over the rows that are changed and a copy of the batch; measured speeds are in
        benchmarks/README.md. On CUDA, uint8 images take two fused kernels a batch; a warning says
        where Triton cannot compile them. Named policies wait for no device where strengths and keys
        are on the CPU, as ``Sample.to`` leaves them. So the range of float images on a GPU is
        checked behind: values outside raise in a later call, when the check has come back.

    Example:
        >>> strong = AdaptiveStrengthTransform("trivial", seed=0)
        >>> images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
        >>> out = strong(images, torch.tensor([0.0, 0.7]))
        >>> torch.equal(out[0], images[0]), out.dtype
        (True, torch.uint8)
        >>> label, index, strength = torch.tensor([3, 7]), torch.arange(2), torch.tensor([0.0, 1.0])
        >>> batch = strong(Sample(images, label, index, torch.ones(2), strength))
        >>> torch.equal(batch.input, strong(images, strength, keys=batch.keys))
        True
        >>> import kornia.augmentation as K
        >>> turned = AdaptiveStrengthTransform(K.RandomAffine(30.0, p=1.0))(images, 0.5)

    Source:
        SADA (Yang et al. 2025), as publicly described: one random operation a sample, its
        magnitude the strength × the operation's maximum. The policies' papers are named in
        ``augloader.augment.policies``.
    """

    def __init__(
        self,
        *policy: str | K.AugmentationBase2D | Sequence[K.AugmentationBase2D],
        seed: int = 0,
        interpolation: Interpolation | None = None,
        fill: float | Sequence[float] = 0.0,
        mask_fill: float = 0,
        untouched: Sequence[str] = (),
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        """See the class."""
        super().__init__()
        self._seed = require_seed(seed)
        self._policy: Policy | KorniaOperations
        if len(policy) == 1 and isinstance(policy[0], str):
            self._policy = _named(policy[0], options)
        else:
            options |= {} if interpolation is None else {"interpolation": interpolation}
            options |= {"fill": fill} if fill != 0.0 else {}
            options |= {"mask_fill": mask_fill} if mask_fill != 0 else {}
            if options:
                raise TypeError(
                    "Kornia operations must carry their own options, got an unexpected keyword "
                    f"argument {next(iter(options))!r}. Pass it to the operations."
                )
            whole = len(policy) == 1 and isinstance(policy[0], list | tuple)
            self._policy = KorniaOperations(policy[0] if whole else policy)  # type: ignore[arg-type]
        if interpolation is None:
            interpolation = "bilinear" if isinstance(self._policy, AugMix) else "nearest"
        require_one_of("interpolation", interpolation, ("nearest", "bilinear"))
        self._interpolation: Interpolation = interpolation
        self._fill = _numbers("fill", (fill,) if isinstance(fill, int | float) else fill)
        require_number("mask_fill", mask_fill, "(-inf, inf)", "Give the loss's ignore_index.")
        self._mask_fill = mask_fill
        self._untouched = names_of(untouched)
        if (mean is None) != (std is None):
            raise ValueError(
                f"mean and std must be given together, got mean={mean}, std={std}. Give both."
            )
        if dtype is not None and (dtype not in DTYPES or dtype == torch.uint8):
            raise ValueError(
                f"dtype must be a floating dtype or None, got {dtype}. None keeps the images' own."
            )
        if mean is None or std is None:
            self._output = Output(dtype)
        else:
            means, deviations = _numbers("mean", mean), _numbers("std", std)
            if min(deviations) <= 0:
                raise ValueError(f"std must be above 0, got {std}. Give each channel's deviation.")
            self._output = Output(dtype or torch.float32, means, deviations)
        self._range = RangeCheck()
        # Of the own generator; torch cannot send a Generator itself to spawned workers.
        self._state: Tensor | None = None
        self._worker_seed: int | None = None  # the worker that the state was made for

    @property
    def keyed(self) -> bool:
        """Whether the rows of a batch can be drawn by their keys; Kornia draws all at once."""
        return not isinstance(self._policy, KorniaOperations)

    @property
    def untouched(self) -> tuple[str, ...]:
        """Names of what stays in place though it lies on the images."""
        return self._untouched

    def require_arrived(self) -> None:
        """Raise for float images outside [0, 1], as far as checks on a GPU have come back."""
        self._range.arrived()

    @property
    def output(self) -> Output:
        """What becomes of the augmented images: dtype, mean and std."""
        return self._output

    def __repr__(self) -> str:
        """Return the policy and the seed."""
        return f"{type(self).__name__}({self._policy!r}, seed={self._seed})"

    def forward(
        self,
        images: Any,
        strength: Tensor | np.ndarray[Any, Any] | float | None = None,
        generator: torch.Generator | None = None,
        *,
        keys: Tensor | None = None,
    ) -> Any:
        """Return ``apply(images, sample(images.shape, strength, generator, keys=keys))``.

        Args:
            images: (B, C, H, W) or (C, H, W); or a tuple of images, or a mapping with them as
                "image", and what follows their geometry: torchvision's Mask, BoundingBoxes and
                KeyPoints, in mappings, in tuples, or in a list, or a tuple of mappings, with one
                entry an image; or a Sample, of a batch or of one image. Its input is augmented by
                its own strength and keys (a batch by Kornia operations without keys), and what its
                target and extra fields hold of the above follows.
            strength: see ``sample``; on the CPU or the images' device. None for a Sample.
            generator: see ``sample``. Beside a Sample it is drawn from in place of its keys.
            keys: see ``sample``. None for a Sample.

        Returns:
            What ``apply`` returns; a tuple or a dict for what is one; for a Sample a Sample.
        """
        if not isinstance(images, Sample):
            return self._augmented(images, strength, generator, keys)[0]
        if strength is not None or keys is not None:
            raise TypeError(
                f"{'keys' if strength is None else 'strength'} must be left out beside a Sample, "
                "which has its own, got both. Call strong(batch), or replace the batch's own by "
                "batch._replace(strength=...)."
            )
        if generator is None and (self.keyed or images.keys.ndim == 1):
            keys = images.keys
        out, params = self._augmented(images.input, images.strength, generator, keys, "input")
        return images._replace(
            input=out,
            target=self._follow(images.target, params, "target"),
            extra=self._follow(images.extra, params, "extra"),
        )

    def _follow(self, target: Any, params: Params | KorniaParams, name: str) -> Any:
        return follow(
            target, params, mask_fill=self._mask_fill, untouched=self._untouched, name=name
        )

    def _augmented(
        self,
        images: Any,
        strength: Any,
        generator: torch.Generator | None,
        keys: Tensor | None,
        name: str = "images",
    ) -> tuple[Any, Params | KorniaParams]:
        """Return images, or a tuple of them and what follows, augmented; and the parameters."""
        whole = isinstance(images, tuple | Mapping) and len(images) > 0
        key = image_of(images) if whole else None
        first = images[key] if whole else images
        require_images(first)
        if isinstance(strength, Tensor) and strength.device not in (_CPU, first.device):
            raise ValueError(
                f"strength must be on the CPU or on {first.device} as the images, got "
                f"{strength.device}. Move it."
            )
        params = self.sample(first.shape, strength, generator, keys=keys)
        if not whole:
            return self._applied(first, params), params
        if not isinstance(params, Params):
            raise TypeError(
                "images must be a single tensor for Kornia operations, got a "
                f"{type(images).__name__}. Use a named policy for masks and boxes."
            )
        parts = images if isinstance(images, Mapping) else dict(enumerate(images))
        made = {
            k: first if k == key else self._follow(part, params, f"{name}.{k}")
            for k, part in parts.items()
        }
        made[key] = self._applied(first, params)
        return (made if isinstance(images, Mapping) else tuple(made.values())), params

    def sample(
        self,
        batch_shape: Sequence[int],
        strength: Tensor | np.ndarray[Any, Any] | float,
        generator: torch.Generator | None = None,
        *,
        keys: Tensor | None = None,
    ) -> Params | KorniaParams:
        """Draw what to do to each row, at its strength.

        Args:
            batch_shape: Shape of the images, (B, C, H, W) or (C, H, W).
            strength: In [0, 1]; floating of shape (B,) on any device, or one number for all rows,
                of Python or NumPy, or a tensor or array without dimensions.
            generator: CPU generator to draw from; None is the transform's own.
            keys: (B, k) integer, 0 or more, one row an image, or (k,) for one image: what a row's
                random numbers depend on, beside the seed: ``batch.keys``. Kornia operations
                take keys for single images only.

        Returns:
            Parameters for ``apply``, on the CPU and picklable.

        Raises:
            TypeError: ``strength``, ``generator`` or ``keys`` has a wrong type.
            ValueError: ``batch_shape``, ``strength`` or ``keys`` has a wrong shape or value, or
                both a generator and keys are given.
        """
        given = tuple(batch_shape)
        if len(given) not in (3, 4):
            raise ValueError(
                f"batch_shape must be (B, C, H, W) or (C, H, W), got {given}. Pass images.shape."
            )
        values = require_strengths(strength, given[:-3])
        channels, height, width = given[-3:]
        shape = (len(values), channels, height, width)
        if min(channels, height, width) < 1:
            raise ValueError(
                f"batch_shape must have at least one channel and one pixel, got {given}. "
                "Pass images.shape."
            )
        if generator is not None and keys is not None:
            raise ValueError("generator must be None where keys are given, got both. Choose one.")
        named = None if keys is None else _check_keys(keys, given[:-3])
        if isinstance(self._policy, KorniaOperations):
            if named is not None:
                generator = self._keyed_generator(named)
            with self._drawing(generator) as drawing:
                return self._policy.draw(drawing, values, shape)
        if self._policy.coloured and channels not in (1, 3):
            raise ValueError(
                f"images must have 1 or 3 channels for colour operations, got {channels}. "
                'Use "cutout", "erasing" or Kornia operations for others.'
            )
        size = (shape[0], self._policy.uniforms)
        if named is None:
            with self._drawing(generator) as drawing:
                u = torch.rand(size, dtype=torch.float64, device="cpu", generator=drawing).numpy()
        else:
            u = uniforms(self._seed, named, size[1])
        return self._policy.draw(u, values.numpy().astype(np.float64), shape)

    def apply(  # type: ignore[override]  # nn.Module's takes a function
        self, images: Tensor, params: Params | KorniaParams | None = None
    ) -> Tensor:
        """Apply sampled parameters to images; the same parameters give the same pixels.

        Args:
            images: (B, C, H, W) or (C, H, W), on any device; uint8, or floating in [0, 1]. Never
                modified.
            params: What ``sample`` returned for this shape.

        Returns:
            A new tensor of the images' shape, device and memory format (``torch.channels_last``
            too), in the transform's ``dtype``. Where that is the images' own, rows that no
            operation changes are copied bit for bit.

        Raises:
            TypeError: ``images`` or ``params`` has a wrong type.
            ValueError: ``images`` has another shape than the parameters are for, or values outside
                [0, 1] or NaN; or ``fill`` is outside the range of the images' dtype, or of
                another number of channels, as mean and std.
        """
        if params is None and callable(images):  # what module.apply(function) calls
            return super().apply(images)  # type: ignore[return-value]
        require_images(images)
        wanted = KorniaParams if isinstance(self._policy, KorniaOperations) else Params
        if not isinstance(params, wanted):
            raise TypeError(
                f"params must be the {wanted.__name__} that sample returned, got "
                f"{type(params).__name__}. Call sample(images.shape, strength)."
            )
        shape = tuple(images.shape if images.ndim == 4 else (1, *images.shape))
        if shape != params.shape:
            raise ValueError(
                f"images must have the shape that params are for, {params.shape}, "
                f"got {shape}. Call sample(images.shape, strength)."
            )
        return self._applied(images, params)

    def _applied(self, images: Tensor, params: Params | KorniaParams) -> Tensor:
        """Do ``apply`` for images of a supported type and the parameters' shape."""
        batch = (images if images.ndim == 4 else images.unsqueeze(0)).as_subclass(Tensor)
        self._range(batch)
        constants = {"fill": self._fill, "mean": self._output.mean, "std": self._output.std}
        for name, values in constants.items():
            require_channels(name, values, batch.shape[1])
        if isinstance(self._policy, KorniaOperations):
            assert isinstance(params, KorniaParams)
            out = self._output.of(self._policy.apply(batch, params))
        else:
            assert isinstance(params, Params)
            require_fill(self._fill, batch)
            out = apply_params(
                batch, params, self._output, interpolation=self._interpolation, fill=self._fill
            )
        out = laid_out_as(batch, out)
        out = out if images.ndim == 4 else out[0]
        return tv_tensors.wrap(out, like=images) if isinstance(images, tv_tensors.Image) else out

    @contextmanager
    def _drawing(self, generator: torch.Generator | None) -> Iterator[torch.Generator]:
        """Yield the generator to draw from: the given one, or this process's own.

        A worker makes its own, and does not go on with a copy of the main process's.
        """
        if generator is not None:
            if not isinstance(generator, torch.Generator) or generator.device.type != "cpu":
                raise TypeError(
                    f"generator must be a torch.Generator on the CPU, got {generator!r}. "
                    "Pass for example torch.Generator().manual_seed(0)."
                )
            yield generator
            return
        info, own = torch.utils.data.get_worker_info(), torch.Generator()
        worker_seed = None if info is None else info.seed
        if self._state is not None and worker_seed == self._worker_seed:
            own.set_state(self._state)
        else:
            entropy = [self._seed] if worker_seed is None else [self._seed, worker_seed]
            own.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))
        yield own
        self._state, self._worker_seed = own.get_state(), worker_seed

    def _keyed_generator(self, keys: np.ndarray[Any, Any]) -> torch.Generator:
        if len(keys) != 1:
            raise ValueError(
                f"keys must be of one image for Kornia operations, got {len(keys)} rows. "
                "Pass a generator: Kornia draws a whole batch at once."
            )
        seed = int(uniforms(self._seed, keys, 1)[0, 0] * 2**53)
        return torch.Generator().manual_seed(seed)


_CPU = torch.device("cpu")


def _named(name: str, options: dict[str, Any]) -> Policy:
    """Return the policy of a name, built with its options."""
    if name not in POLICIES:
        raise ValueError(
            f"policy must be one of {', '.join(map(repr, POLICIES))}, got {name!r}. "
            "Choose one of them, or pass Kornia augmentations."
        )
    known = [field.name for field in fields(POLICIES[name])]
    for option in options:
        if option not in known:
            raise TypeError(
                f"options of {name!r} must be among {', '.join(known)}, got an unexpected keyword "
                f"argument {option!r}. Fix its name."
            )
    return POLICIES[name](**options)


def _numbers(name: str, values: Sequence[float]) -> tuple[float, ...]:
    """Return finite numbers as a tuple of floats."""
    if not isinstance(values, Iterable) or not all(
        isinstance(v, int | float) and not isinstance(v, bool) for v in values
    ):
        raise TypeError(
            f"{name} must be numbers, one a channel, got {values!r}. Pass for example (0.5,)."
        )
    if not len(values) or not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite numbers, got {values!r}. Give one a channel.")
    return tuple(map(float, values))


def _check_keys(keys: Tensor, batch: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Return the keys as (B, k) integers; ``batch`` is (B,), or () for one image."""
    if not isinstance(keys, Tensor) or keys.dtype not in _INTEGERS:
        raise TypeError(f"keys must be an integer tensor, got {kind(keys)}. Pass batch.keys.")
    if keys.ndim != 1 + len(batch) or keys.shape[:-1] != batch or not keys.shape[-1]:
        rows = f"({batch[0]}, k), a row an image" if batch else "(k,), k at least 1, of one image"
        raise ValueError(
            f"keys must have shape {rows}, got shape {tuple(keys.shape)}. Pass batch.keys."
        )
    if (keys < 0).any():
        raise ValueError(f"keys must be 0 or more, got {int(keys.min())}. Pass batch.keys.")
    return keys.cpu().reshape(-1, keys.shape[-1]).numpy()
