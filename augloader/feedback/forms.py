"""What a report must look like, whatever its values are."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from augloader.core.checks import as_tensor
from augloader.feedback.learners import ARGUMENTS, Learner, require_needs
from augloader.feedback.views import Weakest

COLUMNS = ("losses", "logits", "proxies")
_ROWS = {  # what to do about rows of another shape
    "losses": 'Compute the loss with reduction="none"; of pixels or tokens report their mean.',
    "logits": "Report one row of class scores a sample; of pixels or tokens, and in regression, "
    "report loss and proxy instead.",
    "proxies": "Report one row a sample: pool or flatten its values.",
    "influences": "Report one number a sample, as HeadInfluence returns them.",
}


def formed(
    b: int,
    given: Mapping[str, Tensor | None],
    columns: Mapping[str, Weakest],
    learners: Mapping[str, Learner],
) -> dict[str, Tensor]:
    """Return what is reported of b samples, on its device, by the names of columns.

    Args:
        b: number of samples.
        given: loss, logits, proxy, target and influence, as of ``SampleTable.report``, by name.
        columns: what was reported before.
        learners: what must be able to learn from it.

    Raises:
        TypeError: values that are no tensors or arrays, or not floating.
        ValueError: nothing reported, or not what the learners need, or influence that none needs;
            other shapes or widths.

    Cost: O(1); waits for no device.
    """
    parts = {name: given.get(ARGUMENTS[name]) for name in ARGUMENTS}
    found = {
        name: as_tensor(ARGUMENTS[name], part, "Report a row a sample.")
        for name, part in parts.items()
        if part is not None
    }
    reported = {name: values for name, values in found.items() if name in COLUMNS}
    if "influences" in found:
        _require_rows("influences", found["influences"], b)
        if not any("influences" in learner.needs for learner in learners.values()):
            raise ValueError(
                "influence must be reported for a rule that needs it, got "
                f"{', '.join(map(repr, learners.values())) or 'none'}. Leave it out, or build the "
                'sampler with strength=StableInfluence("gradient").'
            )
    for name, values in reported.items():
        _require_rows(name, values, b)
        require_width(columns, name, tuple(values.shape[1:]))
    if not reported:
        raise ValueError("report must be given loss, logits or proxy, got none. Pass one of them.")
    for learner in learners.values():
        require_needs(learner, found.keys())
    return found


def require_width(columns: Mapping[str, Weakest], name: str, width: tuple[int, ...]) -> None:
    """Raise ValueError unless values are as wide as those reported under the name before."""
    if name in columns and columns[name].width != width:
        raise ValueError(
            f"{ARGUMENTS[name]} must keep the width {columns[name].width} of earlier reports, "
            f"got {width}. Use one table for one model."
        )


def _require_rows(name: str, values: Tensor, b: int) -> None:
    argument, ndim = ARGUMENTS[name], 1 if name in ("losses", "influences") else 2
    if not values.is_floating_point():
        raise TypeError(f"{argument} must be floating, got {values.dtype}. Report raw values.")
    if values.ndim != ndim or len(values) != b or not values.numel():
        shape = f"({b},)" if ndim == 1 else f"({b}, width)"
        raise ValueError(
            f"{argument} must have shape {shape}, got {tuple(values.shape)}. {_ROWS[name]}"
        )
