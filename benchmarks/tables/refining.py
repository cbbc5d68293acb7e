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
T1_T2 = (0.5, 1.0)  # of the schedule's epochs, as 200 and 400


def longer(share: float) -> tuple[Row, ...]:
    """Return AutoAugment for so many epochs, and a quarter more of them refined."""
    line = f"T1 = {share:g}"
    plain = replace(TO_THE_END[AUTO], name=f"auto-t1-{100 * share:.0f}", epochs=share)
    refined = replace(REFINED[AUTO], name=f"auto-t1-t2-{100 * share:.0f}", epochs=1.25 * share)
    return (
        Row(line, CLEAN, plain, column="AutoAugment"),
        Row(line, CLEAN, replace(refined, off=0.2), f"AutoAugment, {line}", "", "and T2 refined"),
    )


TABLE_LONGER = Table(
    "How long with AutoAugment",
    "He et al. (2019), Table 3: theirs is CIFAR-100, T1 = 200 and 400 epochs, T2 = 50 more. Here "
    "T1 is a share of the schedule's epochs, and T2 a quarter more.",
    (
        *(row for share in T1_T2 for row in longer(share)),
        Row("standard", CLEAN, WEAK),
    ),
)
