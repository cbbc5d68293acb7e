"""Selection and Evidence: what they refuse, and what is not checked twice."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from augloader import Evidence, Proxies, Selection


@pytest.mark.parametrize(
    ("indices", "weights", "error", "words"),
    [
        (torch.tensor([0.0]), torch.ones(1), TypeError, "int64 indices"),
        (torch.tensor([0]), torch.ones(1, dtype=torch.float64), TypeError, "float32 weights"),
        (torch.tensor([], dtype=torch.int64), torch.ones(0), ValueError, "k >= 1"),
        (torch.tensor([0, 1]), torch.ones(1), ValueError, "as many weights"),
        (torch.tensor([2, 2]), torch.ones(2), ValueError, "distinct"),
        (torch.tensor([0, -1]), torch.ones(2), ValueError, "distinct and 0 or more"),
        (torch.tensor([0, 1]), torch.tensor([1.0, 0.0]), ValueError, r"first indices 1"),
        (torch.tensor([0, 1]), torch.tensor([torch.nan, 1.0]), ValueError, r"first indices 0"),
    ],
)
def test_bad_selections(
    indices: Tensor, weights: Tensor, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        Selection(indices, weights)


def test_bad_evidence() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Evidence(0)
    with pytest.raises(ValueError, match=r"labels must have shape \(3,\)"):
        Evidence(3, labels=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"labels must be 0 or more.*first indices 2"):
        Evidence(3, labels=torch.tensor([0, 1, -1]))
    with pytest.raises(ValueError, match="proxies must have 3 rows, got 2"):
        Evidence(3, proxies=Proxies(torch.zeros(2, 2)))
    with pytest.raises(ValueError, match=r"losses must have shape \(3,\)"):
        Evidence(3, losses=torch.zeros(3, 1))
    with pytest.raises(ValueError, match=r"losses must be finite.*first indices 1"):
        Evidence(3, losses=torch.tensor([0.0, torch.nan, 0.0]))
    with pytest.raises(TypeError, match="losses must be floating"):
        Evidence(3, losses=torch.tensor([0, 1, 2]))


def test_shares_and_bad_ones() -> None:
    three = torch.tensor([7, 0, 4])
    share = Evidence(9, torch.arange(3), Proxies(torch.zeros(3, 2)), torch.zeros(3), indices=three)
    assert share.n == 9
    nothing = torch.empty(0, dtype=torch.int64)
    assert Evidence(9, nothing, losses=torch.empty(0), indices=nothing).proxies is None
    with pytest.raises(ValueError, match=r"labels must have shape \(3,\)"):
        Evidence(9, labels=torch.zeros(9, dtype=torch.int64), indices=three)
    with pytest.raises(ValueError, match="proxies must have 3 rows, got 9"):
        Evidence(9, proxies=Proxies(torch.zeros(9, 2)), indices=three)
    with pytest.raises(ValueError, match=r"losses must have shape \(3,\)"):
        Evidence(9, losses=torch.zeros(9), indices=three)
    with pytest.raises(ValueError, match=r"indices must be in \[0, 7\), got indices from 0 to 7"):
        Evidence(7, indices=three)
    with pytest.raises(ValueError, match="indices must be distinct, got repeated ones"):
        Evidence(9, indices=torch.tensor([1, 2, 1]))
    with pytest.raises(TypeError, match=r"indices must be \(k,\) int64 indices, got .*float32"):
        Evidence(9, indices=torch.tensor([1.0]))


def test_fields_that_were_checked_are_not_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Evidence(9, torch.zeros(9).long(), losses=torch.rand(9))
    monkeypatch.setattr(Evidence, "__post_init__", lambda _: pytest.fail("checked again"))
    some = whole.with_checked(previous=torch.tensor([4]))
    again = some.with_checked(losses=None)
    assert type(again) is Evidence
    assert again.previous is some.previous
    assert again.labels is whole.labels
    assert (whole.previous, again.losses, again.proxies) == (None, None, None)


def test_what_is_missing_is_named_with_its_source() -> None:
    evidence = Evidence(3, losses=torch.zeros(3))
    assert evidence.require("losses") is evidence.losses
    with pytest.raises(ValueError, match=r"evidence.scores must be given, got None. Add yours"):
        evidence.require("scores")
    evidence.require_whole()
    with pytest.raises(ValueError, match=r"all 3 samples, got a share of 1. Give the sampler grou"):
        Evidence(3, indices=torch.tensor([2])).require_whole()


@pytest.mark.parametrize("kind", [torch.tensor, np.array, list])
def test_arrays_and_lists_are_evidence(kind: Any) -> None:
    numbers, rows = [0.5, 0.25, 2.0], [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    known = {name: kind(numbers) for name in ("losses", "forgetting", "scores")}
    found = Evidence(
        np.int64(3),  # type: ignore[arg-type]
        kind([2, 0, 1]),
        kind(rows),
        previous=kind([1]),
        indices=kind([2, 0, 1]),
        features=kind(rows),
        **known,
    )
    assert type(found.n) is int
    for name in known:
        assert getattr(found, name).tolist() == numbers
    assert isinstance(found.proxies, Proxies)
    assert found.proxies.gradient.tolist() == found.require("features").tolist() == rows
    for name in ("labels", "previous", "indices"):
        assert found.__dict__[name].dtype == torch.int64
    chosen = Selection(kind([1, 2]), as_float32(kind([1.5, 1.5])))
    assert (chosen.indices.tolist(), chosen.weights.tolist()) == ([1, 2], [1.5, 1.5])


def as_float32(values: Any) -> Any:
    return values.astype(np.float32) if isinstance(values, np.ndarray) else values


@pytest.mark.parametrize("name", ["labels", "losses", "previous", "indices", "features", "scores"])
def test_what_is_no_array_is_named(name: str) -> None:
    for other in ("scores", 3, {0: 1.0}, [None] * 3):
        with pytest.raises(
            TypeError, match=f"^{name} must be a tensor or an array of numbers, got"
        ):
            Evidence(3, **{name: other})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"proxies must be a tensor.*Pass Proxies\(gradient\)"):
        Evidence(3, proxies=(lambda: 3))  # type: ignore[arg-type]


def test_labels_are_kept_as_int64_and_nothing_keeps_a_graph() -> None:
    for dtype in (torch.int8, torch.uint8, torch.uint16, torch.int32):
        assert Evidence(2, torch.tensor([0, 3], dtype=dtype)).require("labels").dtype == torch.int64
    x = torch.rand(2, requires_grad=True)
    found = Evidence(2, losses=x, proxies=Proxies(x[:, None] * 2), features=x[:, None], scores=x)
    assert not any(found.require(name).requires_grad for name in ("losses", "features", "scores"))
    assert found.proxies is not None
    assert not found.proxies.gradient.requires_grad


def test_rows_of_a_share_are_named_by_their_samples() -> None:
    share: dict[str, Any] = {"indices": torch.tensor([70, 4, 51])}
    for name, rows in (("losses", [0, torch.nan, 1]), ("features", [[0], [torch.inf], [1]])):
        given = share | {name: torch.tensor(rows)}
        with pytest.raises(ValueError, match=rf"{name} must be finite.*\(first samples 4\)"):
            Evidence(99, **given)
    with pytest.raises(ValueError, match=r"labels must be 0 or more.*\(first samples 51, 70\)"):
        Evidence(99, **share, labels=torch.tensor([-1, 0, -3]))
    with pytest.raises(
        ValueError, match=r"previous must be distinct, got repeated ones\. Pass sel"
    ):
        Evidence(99, previous=torch.tensor([3, 3]))
