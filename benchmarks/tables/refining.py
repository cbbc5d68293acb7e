"""When to end strong augmentation, and how: at once, or fading."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from method import Method

from tables import refinement
from tables.methods import CLEAN, WEAK, slug
from tables.table import Row, Table

MIXUP, CUTMIX, AUTO = "Mixup", "CutMix", "AutoAugment, Cutout"
KINDS = (MIXUP, CUTMIX, AUTO)
REFINED = {row.line: row.method for row in refinement.TABLE.rows if row.column == "refined"}
TO_THE_END = {row.line: row.method for row in refinement.TABLE.rows if row.column == "to the end"}
OFF = (0.05, 0.1, 0.2, 0.3, 0.5)
WAYS: dict[str, dict[str, Any]] = {
    "faded in the last fifth": {"refined": False, "fade": 0.2},
    "faded in the last half": {"refined": False, "fade": 0.5},
    "crops and flips off, too": {"bare": True},
}


def off(share: float) -> Row:
    """Return the row of Mixup that ends before some share of the epochs."""
    name = f"mixup-off-{100 * share:.0f}"
    method = replace(REFINED[MIXUP], name=name, off=share)
    return Row(f"off for the last {share:.0%}", CLEAN, method, "to the end")


TABLE_OFF = Table(
    "When to end Mixup",
    "He et al. (2019), Figure 4, a picture: theirs is PreActResNet-18, CIFAR-100, 400 epochs.",
    (
        Row("to the end", CLEAN, TO_THE_END[MIXUP]),
        *(off(share) for share in OFF),
    ),
)


def way(label: str, kind: str, method: Method) -> Row:
    """Return the row of a way to end an augmentation, compared with switching it off."""
    against = "" if label == "switched off" else f"{kind}, switched off"
    return Row(label, CLEAN, method, against, column=kind)


TABLE_FADE = Table(
    "How to end strong augmentation",
    "He et al. (2019), section 4.1: Mixup's gamma, or the probability of the others, falls to 0; "
    "they found no significant difference to switching off, in the last fifth here.",
    tuple(
        row
        for kind in KINDS
        for row in (
            way("to the end", kind, TO_THE_END[kind]),
            way("switched off", kind, REFINED[kind]),
            *(
                way(label, kind, replace(REFINED[kind], name=f"{slug(kind)}-{slug(label)}", **how))
                for label, how in WAYS.items()
            ),
        )
    ),
)
T1 = (0.5, 1.0)  # of the schedule's epochs, as 200 and 400


def longer(share: float) -> tuple[Row, ...]:
    """Return AutoAugment for so many epochs, and refined for some more."""
    line = f"T1 = {share:g}"
    plain = replace(TO_THE_END[AUTO], name=f"auto-t1-{100 * share:.0f}", epochs=share)
    name = f"auto-t1-and-t2-{100 * share:.0f}"
    refined = replace(REFINED[AUTO], name=name, epochs=share, longer=0.25)
    return (
        Row(line, CLEAN, plain, column="AutoAugment"),
        Row(line, CLEAN, refined, f"AutoAugment, {line}", "", "and T2 refined"),
    )


TABLE_LONGER = Table(
    "How long with AutoAugment",
    "He et al. (2019), Table 3, CIFAR-100. PreActResNet-18: T1 = 400, T2 = 50 more: 79.33, refined "
    "80.09; T1 = 1000, T2 = 200: 78.16, refined 80.38 (--schedule he-preact and he-preact-1000). "
    "WRN-28-10: T1 = 200, T2 = 50: 83.73, refined 84.06; T1 = 400: 83.85, refined 85.24 "
    "(--schedule he-wrn-cosine). Here T1 is a share of the schedule's epochs, and T2, at the last "
    "rate, a quarter more where the schedule has none.",
    (
        *(row for share in T1 for row in longer(share)),
        Row("standard", CLEAN, WEAK),
    ),
)
