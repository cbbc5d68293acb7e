"""Every image augmented in place, at fixed strengths and at strengths of its own."""

from __future__ import annotations

from recipe import Method, Problem

from augloader import Constant, Entropy, LossRank, StableInfluence, StrengthRule, Uniform
from tables.methods import CLEAN, IN_PLACE, NOISY, TAIL, WEAK, slug
from tables.table import Row, Table

RULES: dict[str, StrengthRule] = {
    "strength 1/2": Constant(0.5),
    "strength 0.92": Constant(0.92),  # SADA's mean
    "SADA": StableInfluence(),
    "SADA, ranks": StableInfluence(scaling="rank"),
    "entropy": Entropy(),
    "loss rank": LossRank(),
}


def table(title: str, problem: Problem) -> Table:
    """Return the table of one problem."""
    adaptive = [
        Row(
            label,
            problem,
            Method(slug(label), Uniform(), 1.0, base="none", strength=rule),
            "strength 1",
        )
        for label, rule in RULES.items()
    ]
    fixed = (Row("none", problem, WEAK), Row("strength 1", problem, IN_PLACE, "none"))
    return Table(
        title,
        "TrivialAugment in place, strengths as publicly described of Yang et al. (2025), whose "
        "tables are not public, and of related rules.",
        (*fixed, *adaptive),
    )


TABLE = table("Strength of its own for each image", CLEAN)
TABLE_NOISE = table("The same with half of the labels wrong", NOISY)
TABLE_TAIL = table("The same with a long tail", TAIL)
