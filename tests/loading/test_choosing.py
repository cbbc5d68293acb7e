"""A selection from what is given, or from what was reported."""

from typing import Any

import numpy as np
import pytest
import torch

from augloader import Evidence, Loss, Rank, Uniform
from augloader.feedback import SampleTable
from augloader.loading.choosing import choose

N = 12
LOSSES = torch.arange(float(N)).flip(0)


def chosen(evidence: Any, table: SampleTable, strategy: Any = None, **options: Any) -> list[int]:
    given = {"previous": None, "epoch": 3, "stale": None, "group": None, **options}
    selection = choose(
        strategy or Rank(Loss()),
        evidence,
        4,
        table=table,
        generator=np.random.default_rng(0),
        **given,
    )
    return selection.indices.tolist()


def reported(epoch: int = 3, last: int = N) -> SampleTable:
    table = SampleTable(N)
    table.report(torch.arange(last), loss=LOSSES[:last], epoch=epoch)
    return table


def test_what_is_given_counts_and_else_what_was_reported() -> None:
    assert chosen(None, reported()) == [0, 1, 2, 3]
    assert chosen(Evidence(N, losses=LOSSES.flip(0)), reported()) == [11, 10, 9, 8]


@pytest.mark.parametrize("evidence", [LOSSES, LOSSES.numpy(), LOSSES.tolist(), {"losses": LOSSES}])
def test_evidence_is_an_evidence(evidence: Any) -> None:
    with pytest.raises(TypeError, match=r"evidence must be an Evidence, got .*Evidence\(n, scores"):
        chosen(evidence, reported())


def test_evidence_is_of_the_samplers_samples() -> None:
    with pytest.raises(ValueError, match="evidence must be of the sampler's 12 samples, got 9"):
        chosen(Evidence(9, losses=LOSSES[:9]), reported())
    share = Evidence(N, losses=LOSSES[:6], indices=torch.arange(6))
    with pytest.raises(ValueError, match="evidence must"):
        chosen(share, reported())


def test_reports_may_be_so_many_epochs_old() -> None:
    table = reported(epoch=1)
    assert chosen(None, table) == chosen(None, table, stale=2) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="drop_last"):
        chosen(None, table, stale=1)
    with pytest.raises(ValueError, match="drop_last"):
        chosen(None, reported(last=N - 1))


def test_a_strategy_that_needs_nothing_needs_no_report() -> None:
    assert len(chosen(None, SampleTable(N), Uniform())) == 4
