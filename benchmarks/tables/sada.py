"""Every image augmented in place, at fixed strengths and at strengths of its own."""

from __future__ import annotations

from method import Method
from schedules import Problem

from augloader import Constant, Entropy, LossRank, StableInfluence, Uniform
from augloader.feedback import StrengthRule
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


PROBLEMS = {"clean": CLEAN, "half of the labels wrong": NOISY, "long tail": TAIL}


def rows(column: str, problem: Problem) -> tuple[Row, ...]:
    """Return the rows of one problem."""
    adaptive = [
        Row(
            line,
            problem,
            Method(slug(line), Uniform(), 1.0, base="none", strength=rule),
            f"{column}, strength 1",
            column=column,
        )
        for line, rule in RULES.items()
    ]
    return (
        Row("none", problem, WEAK, f"{column}, strength 1", column=column),
        Row("strength 1", problem, IN_PLACE, column=column),
        *adaptive,
    )


TABLE = Table(
    "Strength of its own for each image",
    "TrivialAugment in place, strengths as publicly described of Yang et al. (2025), whose tables "
    "are not public, and of related rules; all compared with strength 1.",
    tuple(row for column, problem in PROBLEMS.items() for row in rows(column, problem)),
)
WINDOWS, SMOOTHINGS = (2, 3, 5, 10), (0.5, 0.9, 1.0)
TABLE_WINDOW = Table(
    "The window and smoothing of SADA",
    "Ours: which L and beta Yang et al. (2025) take is not public, smaller L is said to do better. "
    "Compared with strength 1 for all.",
    (
        Row("strength 1", CLEAN, IN_PLACE),
        *(
            Row(
                f"L = {window}",
                CLEAN,
                Method(
                    f"sada-{window}-{round(100 * beta)}",
                    Uniform(),
                    1.0,
                    base="none",
                    strength=StableInfluence(window=window, smoothing=beta),
                ),
                "strength 1",
                column=f"beta = {beta:g}",
            )
            for window in WINDOWS
            for beta in SMOOTHINGS
        ),
    ),
)
