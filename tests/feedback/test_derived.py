"""Losses and proxies from logits are torch's, whatever the size of the blocks."""

import pytest
import torch
import torch.nn.functional as F

from augloader.core.proxies import residual
from augloader.feedback import SampleTable, derived, guards
from augloader.feedback.derived import losses_of, proxies_of


@pytest.mark.parametrize("values", [1, 7, 12, 2**20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_they_are_torchs(values: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derived, "_VALUES", values)
    logits = torch.randn(11, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    labels = torch.arange(11) % 3
    expected = F.cross_entropy(logits.float(), labels, reduction="none")
    torch.testing.assert_close(losses_of(logits, labels), expected)
    assert torch.equal(proxies_of(logits, labels), residual(logits, labels))


def test_labels_out_of_range_are_refused() -> None:
    for made in (losses_of, proxies_of):
        with pytest.raises(ValueError, match="labels must be in"):
            made(torch.zeros(2, 3), torch.tensor([0, 3]))


def test_a_table_that_keeps_no_logits_keeps_their_losses() -> None:
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    labels, index = torch.arange(6) % 3, torch.arange(6)
    tables = [SampleTable(6, keep_logits=keep) for keep in (True, False)]
    for table in tables:
        table.report(index, logits=logits, target=labels)
    whole, lean = (table.evidence(frozenset({"losses"})).require("losses") for table in tables)
    torch.testing.assert_close(lean, whole)
    assert len(lean) == 6
    assert tables[1].evidence().proxies is None
    assert len(tables[1].missing("logits")) == 6
    tables[1].report(index, logits=logits, loss=torch.ones(6), target=labels)
    assert tables[1].evidence().require("losses").tolist() == [1] * 6
    tables[1].load_state_dict(tables[0].state_dict())
    assert "logits" not in tables[1].state_dict()["columns"]
    alone = SampleTable(6, keep_logits=False)
    alone.report(index, logits=logits)  # without labels there is no loss
    assert (alone.visits == 1).all()
    assert len(alone.missing("losses")) == 6


def test_more_than_the_memory_is_refused_before_anything_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guards, "_memory", lambda: 1000.0)
    table = SampleTable(100)
    with pytest.raises(ValueError, match=r"logits must take at most half of .* 100 x 3 values"):
        table.report(torch.tensor([1]), loss=torch.ones(1), logits=torch.ones(1, 3))
    assert not table.visits.any()
    assert len(table.missing("losses")) == 100
    table.report(torch.tensor([1]), loss=torch.ones(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_only_what_is_needed_is_made(dtype: torch.dtype) -> None:
    table = SampleTable(6, dtype=dtype)
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    table.report(torch.arange(6), logits=logits, target=torch.arange(6) % 3)
    assert table.evidence(frozenset({"losses"})).proxies is None
    assert table.evidence(frozenset({"proxies"})).losses is None
    both = table.evidence()
    assert both.losses is not None
    assert both.proxies is not None
