"""Transforms of any library, called in their own way with one image or one item."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from augloader.core.batch import Draw
from augloader.core.keyed import uniforms
from augloader.core.lying import tensor_kinds
from augloader.loading.keywords import Targets, call, pair, require_taken, seeded
from augloader.loading.pictures import require_kept, require_plain

Transform = Callable[..., Any]
_STAGES = ("weak", "strong", "final", "clean")  # each with random numbers of its own


@dataclass(frozen=True)
class Adapted:
    """A transform of any library, called in its own way with one image or one item.

    Attributes:
        transform: the transform; of one with random numbers of its own, a copy.
        name: what it is for.
        by_keyword: whether it is called as Albumentations' are.
        asks: which of strength and keys it is given.
        takes: by keyword, the names that it takes; None: any.
        targets: by keyword, what it makes of the names.
        untouched: by keyword, names of what is not given to it.
        of_torchvision: whether torchvision's decides what moves in a whole item.
    """

    transform: Transform
    name: str
    by_keyword: bool = False
    asks: frozenset[str] = frozenset()
    takes: frozenset[str] | None = None
    targets: Targets = Targets()  # noqa: RUF009 - frozen
    untouched: tuple[str, ...] = ()
    of_torchvision: bool = False

    @property
    def takes_strength(self) -> bool:
        """Whether it is given a strength: as the strong transform the draw's, else 1."""
        return "strength" in self.asks

    def __call__(self, image: Any, draw: Draw) -> Any:
        """Return the image, transformed for a draw."""
        if self.by_keyword:
            parts = pair(image)
            if parts is None:
                return self._named({"image": image}, draw)["image"]
            named = {**parts, **self._named(parts, draw)}
            return named if isinstance(image, Mapping) else type(image)(named.values())
        if self.name == "strong":
            require_plain(image)
        out = self.transform(image, **self._given(draw))
        if isinstance(out, Tensor) and isinstance(image, Tensor) and out.ndim == image.ndim + 1:
            out = out.squeeze(0)  # Kornia returns a batch of one
        if self.name == "strong":
            require_kept("strong", image, out)
        return out

    def whole(self, item: Any, key: int | str, draw: Draw) -> Any:
        """Return a whole item, its image and what lies on it, transformed for a draw.

        Args:
            item: a dict, a tuple or a list.
            key: of the image in it.
            draw: what it is transformed for.
        """
        if self.by_keyword:
            if not isinstance(item, dict):
                raise TypeError(
                    "items must be mappings with the keys image, mask, bboxes, ... for transforms "
                    f"called by keyword as Albumentations', got {type(item).__name__}. Return a "
                    'dict, with fields=("image", "mask").'
                )
            return {**item, **self._named(item, draw)}
        if self.name == "strong":
            require_plain(item)
        image = item[key]
        kinds = tensor_kinds()
        plain = type(image) is Tensor and image.ndim > 1
        if plain and kinds:  # else torchvision takes the item's first tensor for its image
            item = _with(item, key, image.as_subclass(kinds.Image))
        out = self.transform(item, **self._given(draw))
        alike = type(out) in (type(item), tuple if isinstance(item, tuple) else None)
        if not alike or len(out) != len(item):
            raise TypeError(
                f"{self.name} must return the whole item with joint=True, {type(item).__name__} of "
                f"{len(item)}, got {type(out).__name__}. Return all of its fields."
            )
        made = out[key]
        if self.name == "strong":
            require_kept("strong", image, made)
        if plain and isinstance(made, Tensor):
            out = _with(out, key, made.as_subclass(Tensor))
        return out

    def _named(self, parts: dict[str, Any], draw: Draw) -> dict[str, Any]:
        parts = {
            k: part for k, part in parts.items() if k not in self.untouched and part is not None
        }
        names, taken = self.targets.names, self.takes
        require_taken(parts, names if taken is None else names & taken, self.name)
        parts = {key: part for key, part in parts.items() if taken is None or key in taken}
        if "image" not in parts and "images" not in parts:
            raise TypeError(
                "items must have the key image for transforms called by keyword as Albumentations',"
                f" got {', '.join(map(str, parts)) or 'none that it takes'}. Rename the key."
            )
        if self.name == "strong":
            require_plain([parts.get("image"), parts.get("images")])
        transform = self.transform
        if draw.epoch >= 0 or self.name == "clean":  # else it goes on with its own random numbers
            given = int(getattr(transform, "seed", None) or 0) % 2**64
            seeded(transform, int(uniform(self.name, draw, given) * 2**53))
        return call(transform, parts, self.name, self.targets, **self._given(draw))

    def _given(self, draw: Draw) -> dict[str, Any]:
        given: dict[str, Any] = {}
        if "strength" in self.asks:  # a draw's is that of its strong augmentation
            given["strength"] = draw.strength if self.name == "strong" else 1.0
        if "keys" in self.asks:
            names = np.array([max(draw.epoch, 0), draw.index, draw.copy], np.int64)
            given["keys"] = torch.from_numpy(names)
        return given


def uniform(stage: str, draw: Draw, seed: int = 0) -> float:
    """Return a number in [0, 1) that depends on a draw and what it is for, and on nothing else."""
    keys = [[max(draw.epoch, 0), draw.index, draw.copy, _STAGES.index(stage)]]
    return float(uniforms(seed, np.array(keys), 1)[0, 0])


def adapt(
    name: str, transform: Transform | Adapted | None, untouched: tuple[str, ...] = ()
) -> Adapted | None:
    """Return a transform that is called with an image and its draw, or raise TypeError."""
    if transform is None or isinstance(transform, Adapted):
        return transform
    if not callable(transform):
        raise TypeError(
            f"{name} must be a callable on one image, got {transform!r}. "
            "Pass the transform itself, or None."
        )
    try:
        called = transform.forward if isinstance(transform, nn.Module) else transform
        parameters: Mapping[str, inspect.Parameter] = inspect.signature(called).parameters
    except ValueError:  # some built-ins have no signature
        return Adapted(transform, name)
    own_names = frozenset({"strength", "keys"} & parameters.keys())
    asks = own_names
    if name != "strong" and "strength" in asks:
        default = parameters["strength"].default  # None stands for none, as in our own transform
        asks -= set() if default is None or default is inspect.Parameter.empty else {"strength"}
    image = parameters.get("image")
    known = any(
        kind.__module__.split(".")[0] == "albumentations" for kind in type(transform).__mro__
    )
    only = image is not None and image.kind is inspect.Parameter.KEYWORD_ONLY
    if not (known or only or "force_apply" in parameters):
        return Adapted(transform, name, asks=asks, of_torchvision=_of_torchvision(transform))
    any_name = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    own = any(hasattr(transform, name) for name in ("set_random_state", "set_random_seed"))
    return Adapted(
        deepcopy(transform) if own else transform,  # its seeds are set for each draw
        name,
        by_keyword=True,
        asks=asks,
        takes=None if any_name else frozenset(parameters) - own_names,
        targets=Targets.of(transform),
        untouched=untouched,
    )


def _of_torchvision(transform: Any) -> bool:
    """Whether torchvision's ``forward``, inherited or of a part, decides what moves in an item."""
    parts = transform.modules() if isinstance(transform, nn.Module) else [transform]
    called = [getattr(type(part), "forward", None) for part in parts]
    names = [str(getattr(forward, "__module__", "")) for forward in called]
    return any(name.startswith("torchvision.transforms") for name in names)


def _with(item: Any, key: Any, value: Any) -> Any:
    """Return a dict, tuple or list with one entry changed."""
    if isinstance(item, dict):
        return {**item, key: value}
    parts = [value if i == key else part for i, part in enumerate(item)]
    return type(item)(*parts) if hasattr(item, "_fields") else type(item)(parts)
