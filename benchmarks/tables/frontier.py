"""The best accuracy at each cost: rows trained, as a share of 1,024,000."""

from __future__ import annotations

from typing import Any

from recipe import Method

from augloader import FacilityLocation, Loss, Proportional, StableInfluence, Strategy, Uniform
from tables.methods import CLEAN, slug
from tables.table import Row, Table

POLICIES = {
    "TrivialAugment": "trivial",
    "AutoAugment, Cutout": "auto+cutout",
    "RandAugment": "rand",
}
MIXINGS: dict[str, Any] = {"": None, ", Mixup": "mixup", ", CutMix": "cutmix"}
BEST = "AutoAugment, Cutout"  # in place: what everything is compared with
HALF: dict[str, Strategy] = {
    "random": Uniform(),
    "in proportion to loss": Proportional(Loss()),
    "coreset": FacilityLocation(),
}


def row(label: str, share: float, **options: Any) -> Row:
    """Return a row; every image is augmented in place unless the options say otherwise."""
    shared: dict[str, Any] = {"strategy": Uniform(), "fraction": 1.0, "base": "none"}
    shared |= {"policy": POLICIES[BEST], "epochs": share, **options}
    name = f"{slug(label)}-at-1-{round(1 / share)}"
    return Row(label, CLEAN, Method(name, **shared), "" if label == BEST else BEST)


def rows(share: float) -> tuple[Row, ...]:
    """Return what is trained at a share of the cost."""
    made = []
    for name, policy in POLICIES.items():
        for mixed, mix in MIXINGS.items():
            options = {"policy": policy, "mix": mix}
            made.append(row(name + mixed, share, **options))
            options |= {"base": "full", "epochs": share / 2}
            made.append(row(f"{name}{mixed}, appended", share, **options))
    made.append(row("none", share, strategy=None, fraction=None, base="full"))
    made.append(row(f"{BEST}, refined", share, refined=True))
    made.append(row(f"{BEST}, SADA", share, strength=StableInfluence()))
    for part in (0.5, 0.75):
        label = f"{BEST}, a random {part:.0%} each epoch"
        made.append(row(label, share, fraction=part, refresh=1, epochs=share / part))
    for kind, strategy in HALF.items():
        options = {"strategy": strategy, "fraction": 0.5, "base": "full", "copies": 0, "free": True}
        options["weighting"] = "uniform"
        made.append(row(f"{BEST}, of half: {kind}", share, **options))
    return tuple(made)


def table(share: float) -> Table:
    """Return the table of a share of the cost."""
    return Table(
        f"The front at 1/{round(1 / share)} of the cost",
        "Ours. Each image augmented in place, or a strong copy appended to it, in as many rows: "
        f"{share * 1024000:,.0f}. Of half: the others are cropped and flipped only.",
        rows(share),
        schedule="frontier",
    )


FRONTIER = {
    f"frontier-{divisor}": table(1 / divisor)  # the cheapest first
    for divisor in (12, 6, 3, 2, 1)
}
