"""Selection and Evidence: what they refuse, and what is not checked twice."""

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
