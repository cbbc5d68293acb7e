"""What is wrong with a report whatever its values are."""

from typing import Any

import pytest
import torch

from augloader import StableInfluence
from augloader.feedback.forms import formed, require_width
from augloader.feedback.learners import ForgettingEvents, Learner
from augloader.feedback.views import Weakest
from tests.pretend_cuda import Gpu

KNOWN = {"logits": Weakest.none(5, (3,), torch.float32)}
LEARNERS: dict[str, Learner] = {
    "strength": StableInfluence("loss"),
    "forgetting": ForgettingEvents(),
}
GOOD = {"loss": torch.ones(2), "logits": torch.ones(2, 3), "target": torch.ones(2).long()}


def test_a_report_by_the_names_of_columns() -> None:
    found = formed(2, GOOD | {"proxy": None}, KNOWN, LEARNERS)
    assert {name: values.shape for name, values in found.items()} == {
        "losses": (2,),
        "logits": (2, 3),
        "labels": (2,),
    }
    assert formed(2, {"proxy": [[1.0], [2.0]]}, {}, {})["proxies"].shape == (2, 1)  # type: ignore[dict-item]


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "nothing": (
        {"loss": None, "logits": None},
        ValueError,
        "given loss, logits or proxy, got none",
    ),
    "integers": (
        {"loss": torch.ones(2).long()},
        TypeError,
        "loss must be floating, got torch.int64",
    ),
    "mean": ({"loss": torch.tensor(1.0)}, ValueError, r"loss must have shape \(2,\), got \(\)"),
    "rows": ({"logits": torch.ones(3, 3)}, ValueError, r"logits must have shape \(2, width\)"),
    "pixels": ({"proxy": torch.ones(2, 3, 4)}, ValueError, "pool or flatten"),
    "width": ({"logits": torch.ones(2, 4)}, ValueError, r"logits must keep the width \(3,\)"),
    "needs": ({"loss": None}, ValueError, "given loss for the rule StableInfluence"),
    "labels": ({"target": None}, ValueError, "given logits and target for .*got no target"),
    "sparse": ({"loss": torch.ones(2).to_sparse()}, TypeError, "loss must be a dense tensor"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_told_without_waiting(pretended: Gpu, name: str) -> None:
    change, error, words = BAD[name]
    given = {
        key: part.cuda() if isinstance(part, torch.Tensor) and not part.is_sparse else part
        for key, part in (GOOD | change).items()
    }
    pretended.clear()
    with pytest.raises(error, match=words):
        formed(2, given, KNOWN, LEARNERS)
    assert not pretended.waits


def test_widths_stay() -> None:
    require_width(KNOWN, "logits", (3,))
    require_width(KNOWN, "proxies", (7,))
    with pytest.raises(ValueError, match=r"logits must keep the width \(3,\) .* got \(2,\)"):
        require_width(KNOWN, "logits", (2,))
