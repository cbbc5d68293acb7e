"""A table's saved state: of this version and earlier ones, and what is refused by name."""

from typing import Any

import numpy as np
import pytest
import torch

from augloader import Constant, LossRank, StableInfluence
from augloader.core.fields import signed
from augloader.feedback import SampleTable
from augloader.feedback.learners import Learner
from augloader.feedback.saved import VERSION, columns_of, kind_of, read

N = 5


def table_of(rule: Any = None, **options: Any) -> SampleTable:
    table = SampleTable(N, rule=StableInfluence(window=2) if rule is None else rule, **options)
    for epoch in range(3):
        losses = torch.arange(N) + float(epoch)
        logits = torch.eye(N, 3) * (epoch + 1)
        table.report(torch.arange(N), loss=losses, logits=logits, epoch=epoch)
    return table


def learners_of(table: SampleTable) -> dict[str, Learner]:
    return {"strength": table.rule}


def test_a_state_is_read_as_it_was_saved() -> None:
    table = table_of()
    state = table.state_dict()
    found = read(state, N, torch.float32, learners_of(table))
    assert found.keys() == state.keys()
    columns = columns_of(found)
    assert columns.keys() == {"losses", "logits"}
    assert columns["losses"].values.tolist() == [2.0, 3.0, 4.0, 5.0, 6.0]
    columns["losses"].values.zero_()
    assert found["columns"]["losses"][0].any()  # a copy


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n": 6}, "state must be of n=5, .* got n=6"),
        ({"dtype": torch.float16}, "got n=5, torch.float16"),
        ({"rule": "Constant(value=1.0)"}, r"got n=5, torch.float32 and Constant\(value=1.0\)"),
        ({"forgetting": {}}, "got .*, forgetting"),
        ({"period": -1}, "period of the state must be a whole number"),
        ({"visits": torch.full((N,), -1)}, "visits of the state must be finite and at least 0"),
        ({"shared": torch.full((N,), 4)}, "shared of the state must be .* at most others of the"),
        ({"labels": torch.full((N,), -2)}, "labels of the state must be .* at least -1"),
        ({"columns": {"other": (1, 2)}}, "columns of the state must be a dict of nothing, got oth"),
        ({"memory": {}}, None),
        ({"memory": {"previous": torch.zeros(N)}}, "memory of the state must be a dict of prev"),
        ({"memory": None}, "memory of the state must be a dict of"),
    ],
)
def test_what_is_no_state_of_this_table(change: dict[str, Any], words: str | None) -> None:
    table = table_of()
    state = signed(table.state_dict() | change)
    if words is None:
        read(state, N, torch.float32, learners_of(table))
        return
    with pytest.raises(ValueError, match=words):
        read(state, N, torch.float32, learners_of(table))


def test_values_are_looked_at() -> None:
    table = table_of()
    state = table.state_dict()
    values, strength = state["columns"]["losses"]
    period, epoch = state["reported"]["losses"]
    bad: list[dict[str, Any]] = [
        {"columns": state["columns"] | {"losses": (values * torch.nan, strength)}},
        {"columns": state["columns"] | {"losses": (values, strength + 2)}},
        {"columns": state["columns"] | {"losses": (values[:, None], strength)}},
        {"reported": state["reported"] | {"losses": (period + 1, epoch)}},
        {"reported": {"losses": (period, epoch)}},
        {"memory": state["memory"] | {"window": state["memory"]["window"][:, :1]}},
        {"memory": state["memory"] | {"visits": state["memory"]["visits"] - 9}},
    ]
    for change in bad:
        with pytest.raises(ValueError, match="of the state must be"):
            read(signed(state | change), N, torch.float32, learners_of(table))


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("rule", [Constant(), LossRank(), StableInfluence("kl", window=2)])
def test_states_of_earlier_versions_are_taken_over(version: int, rule: Any) -> None:
    table = table_of(rule)
    state = table.state_dict() | {"version": version}
    del state["checksum"]
    if version == 1:  # which knew no periods and epochs
        del state["reported"], state["period"]
    other = SampleTable(N, rule=rule)
    other.load_state_dict(state)
    found = other.evidence(frozenset({"losses"})).require("losses")
    assert found.equal(table.evidence(frozenset({"losses"})).require("losses"))
    strengths = [each.strengths(np.random.default_rng(0)) for each in (table, other)]
    assert strengths[0].equal(strengths[1])
    assert other.state_dict()["version"] == VERSION
    for name in ("visits", "columns"):
        rest = {key: value for key, value in state.items() if key != name}
        with pytest.raises(ValueError, match=f"must be whole, got none of {name}"):
            other.load_state_dict(rest)


def test_what_tables_have_in_common() -> None:
    assert kind_of(5, torch.float16, "Constant()", ("forgetting",)) == (
        "n=5, torch.float16 and Constant(), forgetting"
    )
