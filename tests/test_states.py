"""Saved states that were changed: none is taken over by accident, and none makes draws invalid.

Every part of a state is changed in every way below. As it is then, the checksum refuses it. With a
checksum of its own, as a program may write it, it is refused by the description of its fields, or
what it says is something that a sampler or table may know: all that follows works.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from augloader import (
    CoresetSampler,
    DistributedCoresetSampler,
    Every,
    Evidence,
    FacilityLocation,
    Forgetting,
    InfoBatch,
    LossRank,
    Proportional,
    Sample,
    StableInfluence,
    SwitchOff,
    Uniform,
)
from augloader.core.fields import signed
from augloader.loading import HeadInfluence

pytestmark = [
    pytest.mark.filterwarnings("ignore:All draws of epoch:UserWarning"),
    pytest.mark.filterwarnings("ignore:.* draws all samples:UserWarning"),  # not all are reported
]

N, CLASSES, EPOCHS = 23, 3, 6
Path = tuple[Any, ...]


class Kept(NamedTuple):
    """Something with a state: how it is built, and brought into one; and what is done with it."""

    build: Callable[[], Any]
    fill: Callable[[Any], None]
    use: Callable[[Any], None]


def train(sampler: CoresetSampler) -> None:
    """Report all plain draws of the epoch."""
    drawn = [draw for draw in sampler if draw.copy == 0 and draw.weight > 0]
    if not drawn:
        return
    index, copy, weight, strength = (
        torch.tensor([draw[i] for draw in drawn], dtype=dtype)
        for i, dtype in enumerate((torch.int64, torch.int64, torch.float32, torch.float32))
    )
    target = index % CLASSES
    logits = torch.stack([(index + c).sin() for c in range(CLASSES)], 1)
    batch = Sample(None, target, index, weight, strength, copy)
    losses = F.cross_entropy(logits, target, reduction="none")
    sampler.report(batch, loss=losses, logits=logits)


def to_epoch(sampler: CoresetSampler, last: int = 2) -> None:
    for epoch in range(last + 1):
        sampler.begin(epoch, Evidence(N))
        train(sampler)


def use_sampler(sampler: CoresetSampler) -> None:
    """Draw what is left, and two more epochs; every draw must be valid."""
    epoch = sampler.epoch
    for later in range(epoch, min(epoch + 3, EPOCHS)):
        sampler.begin(later, Evidence(N))
        draws = list(sampler)
        assert len(draws) == len(sampler) <= sampler.plan.length(sampler.draws)
        for draw in draws:
            assert 0 <= draw.index < N
            assert 0 <= draw.copy <= max(1, sampler.copies)
            assert 0 <= draw.weight < np.inf
            assert 0 <= draw.strength <= 1
        total = sum(draw.weight for draw in draws)
        assert not draws or 0 < total < np.inf
    sampler.state_dict(len(sampler))


def use_table(sampler: CoresetSampler) -> None:
    """Report once more, read everything, select, merge and save."""
    table, index = sampler.table, torch.arange(N)
    strengths = table.strengths(np.random.default_rng(0))
    assert ((strengths >= 0) & (strengths <= 1)).all()
    for name in ("losses", "logits", "labels"):
        table.missing(name)
    table.evidence(frozenset(), epoch=EPOCHS, stale=2)
    table.precedence(frozenset({"losses"}))
    width = table._columns["logits"].width[0] if "logits" in table._columns else CLASSES
    given = {"loss": torch.ones(N), "logits": torch.zeros(N, width)}
    said = ""
    try:
        table.report(index, **given, target=index % width, epoch=EPOCHS)
        table.restart()
        table.report(index, **given, target=index % width, epoch=EPOCHS)
    except ValueError as error:  # a rule says so: a loss was 10^9, or classes were more
        said = str(error)
    assert not said or "has training diverged?" in said or "must keep the width" in said
    table.evidence(frozenset({"losses", "labels"}) if len(table._columns) else frozenset())
    strengths = table.strengths(np.random.default_rng(0))
    assert ((strengths >= 0) & (strengths <= 1)).all()
    table.rows(torch.arange(3))
    table.merge(table)
    table.state_dict()


def sampler_of(kind: type[CoresetSampler], **given: Any) -> CoresetSampler:
    options: dict[str, Any] = {"count": 8, "epochs": EPOCHS, "refresh": Every(2, warmup=1)} | given
    strategy: Any = options.pop("strategy", Uniform())
    return kind(range(N), strategy, **options)


plain = partial(sampler_of, CoresetSampler)
SAMPLERS: dict[str, Callable[[], CoresetSampler]] = {
    "plain": partial(
        plain, strength_schedule=SwitchOff(last=1), probability=0.8, pad_to_multiple_of=4
    ),
    "in place, unplanned": partial(plain, epochs=None, copies=0, weighting="uniform"),
    "alone": partial(plain, base="none", weighting="population"),
    "pruned": partial(plain, base=InfoBatch(0.5), weighting="unbiased", constant_length=True),
    "of a rank": partial(sampler_of, DistributedCoresetSampler, num_replicas=2, rank=1),
}
late = partial(plain, refresh=Every(None, warmup=EPOCHS - 1))  # nothing is selected yet
TABLES: dict[str, Callable[[], CoresetSampler]] = {
    "losses": partial(late, strength=StableInfluence(window=2)),
    "outputs": partial(late, strength=StableInfluence("kl", window=2), table_dtype=torch.float16),
    "ranks": partial(late, strength=LossRank()),
    "forgetting": partial(late, strategy=Proportional(Forgetting())),
    "nothing learnt": partial(late, strategy=FacilityLocation(per_class=False)),
}


def a_head() -> HeadInfluence:
    torch.manual_seed(0)
    return HeadInfluence(nn.Sequential(nn.Flatten(), nn.Linear(4, CLASSES)))


def use_head(head: HeadInfluence) -> None:
    head.state_dict()
    assert head._change.isfinite().all()


def fill_table(sampler: CoresetSampler) -> None:
    for epoch in range(4):
        sampler.set_epoch(epoch)
        train(sampler)


class OfTable(NamedTuple):
    """A sampler whose table's state is meant."""

    sampler: CoresetSampler

    def state_dict(self) -> dict[str, Any]:
        return self.sampler.table.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sampler.table.load_state_dict(state)


KEPT: dict[str, Kept] = {
    **{f"sampler, {name}": Kept(make, to_epoch, use_sampler) for name, make in SAMPLERS.items()},
    **{
        f"table, {name}": Kept(
            lambda make=make: OfTable(make()),  # type: ignore[misc]
            lambda part: fill_table(part.sampler),
            lambda part: use_table(part.sampler),
        )
        for name, make in TABLES.items()
    },
    "head": Kept(a_head, lambda _: None, use_head),
}

# Changes ------------------------------------------------------------------------------------------


def of_tensor(value: Tensor) -> Iterator[Any]:
    yield from (None, 3, "x", [], value.tolist(), value.numpy(), value.to_sparse())
    yield from (value.double(), value.half(), value.long(), value.bool(), value.to(torch.int16))
    yield from (value[:-1], value[:0], torch.cat([value, value[:1]]), value[None], value.flatten())
    yield value.flip(0)
    if value.dtype == torch.bool:
        yield ~value
        return
    yield from (value * 0, value + 1, -value, value - 1000)
    for factor in (1000, 10**9):
        yield value * factor
    if value.is_floating_point():
        for bad in (torch.nan, torch.inf, -torch.inf, -1.0, 1.5, 6e4):
            yield torch.full_like(value, bad)
            one = value.clone()
            one.view(-1)[one.numel() // 2] = bad
            yield one
    else:
        for bad in (-2, N, 2**31):
            one = value.clone().long().clamp(max=2**62)
            one.view(-1)[one.numel() // 2] = bad
            yield one.to(value.dtype)
    if value.ndim > 1:
        yield value.transpose(0, 1)
        yield value[:, :-1]


def of_plain(value: Any) -> Iterator[Any]:
    yield from (None, True, -1, -5, 0, 1, 2, 5, 47, 10**9, 10**20, 1.5, "x", b"x", [], {}, (1,))
    yield from (torch.tensor(1), torch.float64, np.int64(2), float("nan"))
    if isinstance(value, int):
        yield from (value + 1, value - 1, float(value), str(value))


def changes(value: Any) -> Iterator[tuple[Path, Any]]:
    """Yield every part of a state, by its path, and what is put in its place; ... leaves it out."""
    if isinstance(value, Tensor):
        for new in of_tensor(value):
            yield (), new
    elif isinstance(value, Mapping):
        wholes: tuple[Any, ...] = (None, [], {}, {**value, "more": 1})
        yield from (((), new) for new in wholes)
        for key, part in value.items():
            yield (key,), ...
            yield from (((key, *path), new) for path, new in changes(part))
    elif isinstance(value, tuple | list):
        yield from (((), new) for new in (None, (), value[:-1], (*value, None), value[::-1]))
        for i, part in enumerate(value):
            yield from (((i, *path), new) for path, new in changes(part))
    else:
        yield from (((), new) for new in of_plain(value))


def changed(value: Any, path: Path, new: Any) -> Any:
    """Return a state in which a part is another, or missing."""
    if not path:
        return new
    first, *rest = path
    if isinstance(value, Mapping):
        if new is ... and not rest:
            return {key: part for key, part in value.items() if key != first}
        return {**value, first: changed(value[first], tuple(rest), new)}
    parts = list(value)
    parts[first] = changed(parts[first], tuple(rest), new)
    return tuple(parts)


def frozen(value: Any) -> Any:
    """Return a state in what can be compared."""
    if isinstance(value, Tensor):
        return str(value.dtype), tuple(value.shape), value.double().nan_to_num(-7.0).tolist()
    if isinstance(value, Mapping):
        return {key: frozen(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return [frozen(part) for part in value]
    return type(value).__name__, str(value)


def same(one: Any, other: Any) -> bool:
    try:
        return bool(frozen(one) == frozen(other))
    except (TypeError, RuntimeError, ValueError, NotImplementedError):  # no state's parts
        return False


def refused(part: Any, state: Any, before: Any) -> str | None:
    """Return the message of a state that is refused, which changes nothing; None: it is taken."""
    try:
        part.load_state_dict(state)
    except (TypeError, ValueError) as error:
        assert frozen(part.state_dict()) == before
        return str(error)
    return None


@pytest.mark.parametrize("name", KEPT)
def test_a_changed_state_is_refused_or_valid(name: str) -> None:
    kept = KEPT[name]
    full, part = kept.build(), kept.build()
    kept.fill(full)
    state = full.state_dict()
    before = frozen(part.state_dict())
    count = taken = 0
    for path, new in changes({k: v for k, v in state.items() if k != "checksum"}):
        other = changed(state, path, new) if path else new
        if same(other, state):
            continue
        count += 1
        message = refused(part, other, before)
        assert message is not None, (path, new)
        assert "must" in message, (path, new, message)
        if not path or not isinstance(other, Mapping):
            continue
        message = refused(part, signed(dict(other)), before)
        if message is not None:
            assert "must" in message, (path, new, message)
            continue
        taken += 1
        kept.use(part)
        part = kept.build()
    assert count > 100
    assert taken < count / 4  # what only a checksum tells: other values that may be


def test_they_are_many() -> None:
    count = 0
    for kept in KEPT.values():
        part = kept.build()
        kept.fill(part)
        count += sum(1 for _ in changes(part.state_dict()))
    assert count > 2000


FULL: dict[str, tuple[Any, Any]] = {}


def tensors(value: Any, path: Path = ()) -> Iterator[tuple[Path, Tensor]]:
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from tensors(part, (*path, key))
    elif isinstance(value, tuple | list):
        for i, part in enumerate(value):
            yield from tensors(part, (*path, i))


@settings(max_examples=400)
@given(st.sampled_from(sorted(KEPT)), st.data())
def test_every_flipped_bit_of_a_tensor_is_refused(name: str, data: st.DataObject) -> None:
    if name not in FULL:
        full = KEPT[name].build()
        KEPT[name].fill(full)
        FULL[name] = KEPT[name].build(), full.state_dict()
    part, state = FULL[name]
    path, value = data.draw(st.sampled_from(list(tensors(state))))
    flipped = value.clone()
    octets = flipped.view(-1).view(torch.uint8).numpy()
    bit = data.draw(st.integers(0, 8 * len(octets) - 1))
    octets[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ValueError, match="checksum differs"):
        part.load_state_dict(changed(state, path, flipped))


def test_a_state_is_taken_over_whose_tuples_became_lists() -> None:
    for kept in KEPT.values():
        full, part = kept.build(), kept.build()
        kept.fill(full)
        state = full.state_dict()
        as_lists = {k: list(v) if isinstance(v, tuple) else v for k, v in state.items()}
        part.load_state_dict(as_lists)
        assert frozen(part.state_dict()) == frozen(state)
