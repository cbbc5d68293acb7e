"""What the sample table refuses."""

import pytest
import torch

from augloader.feedback.guards import earliest, raise_missing, require_index


def test_a_value_as_old_as_may_be_counts() -> None:
    assert earliest(7, 2) == 5
    assert earliest(None, None) == earliest(7, None) == 0


def test_samples_are_distinct_and_in_range() -> None:
    index = torch.tensor([3, 0])
    assert require_index(index, 4).tolist() == [3, 0]
    with pytest.raises(ValueError, match=r"index must be in \[0, 3\)"):
        require_index(index, 3)


@pytest.mark.parametrize(
    ("needs", "words"),
    [
        ({"losses", "labels"}, r"labels and losses must be .* 2 samples \(first indices 0, 1\)"),
        ({"labels"}, r"per_class=False"),
        ({"forgetting"}, r"of a view with strength 0.*Evidence\(n, forgetting=\.\.\.\)"),
        ({"scores"}, r"evidence\.scores must be given"),
    ],
)
def test_what_is_missing_is_named(needs: set[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        raise_missing(needs, torch.tensor([True, True]), None)
