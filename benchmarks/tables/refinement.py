"""Strong augmentation to the end, and switched off for the last epochs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from method import Method

from augloader import Uniform
from tables.methods import CLEAN, WEAK, slug
from tables.table import Row, Table

# Published accuracies, with augmentation to the end and refined; options of the method.
PAPER: dict[str, tuple[str, str, dict[str, Any]]] = {
    "Mixup": ("95.92", "96.26", {"mix": "mixup", "policy": None}),
    "Manifold Mixup": ("95.81", "96.07", {"mix": "manifold", "policy": None}),
    "CutMix": ("96.21", "96.38", {"mix": "cutmix", "policy": None}),
    "AutoAugment, Cutout": ("96.02", "96.20", {"policy": "auto+cutout"}),
}


def rows(label: str, plain: str, refined: str, options: dict[str, Any]) -> tuple[Row, Row]:
    """Return a method's row and its refined one."""
    name = slug(label)
    shared = {"strategy": Uniform(), "fraction": 1.0, "base": "none", **options}
    without = "to the end"
    return (
        Row(label, CLEAN, Method(name, **shared), f"{without}, standard", plain, column=without),
        Row(
            label,
            CLEAN,
            Method(f"{name}-refined", **shared, refined=True),
            f"{without}, {label}",
            refined,
            column="refined",
        ),
    )


TABLE = Table(
    "Refined data augmentation",
    "He et al. (2019), Table 1, CIFAR-10; theirs is PreActResNet-18, 400 + 50 epochs. Every image "
    "is augmented in place; refined: not in the last fifth of the epochs, and there the standard "
    "one without crops and flips.",
    (
        Row("standard", CLEAN, WEAK, "", "94.63", column="to the end"),
        Row(
            "standard",
            CLEAN,
            replace(WEAK, name="weak-refined", refined=True),
            "to the end, standard",
            "94.48",
            column="refined",
        ),
        *(row for label, numbers in PAPER.items() for row in rows(label, *numbers)),
    ),
    networks=("preactresnet18",),
)
