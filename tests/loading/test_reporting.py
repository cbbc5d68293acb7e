"""Reports of values on a GPU: nothing waits for them, and nothing is read without them."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from augloader import CoresetSampler, Every, Loss, Rank, Sample, StableInfluence, Uniform, summary
from augloader.core.batch import stack
from augloader.loading.reporting import Reporting
from tests.pretend_cuda import Gpu

pytestmark = pytest.mark.filterwarnings("ignore:All draws of epoch:UserWarning")  # looked at

N, C, B = 24, 3, 8
WORDING = r"(?s)^\S.* must .+, got .+\. \S"


def sampler_of(**options: Any) -> CoresetSampler:
    given: dict[str, Any] = {"fraction": 0.25, "strength": StableInfluence("loss", window=2)}
    sampler = CoresetSampler(range(N), Uniform(), **(given | {"refresh": Every(2)} | options))
    sampler.refresh()
    return sampler


def batches(sampler: CoresetSampler) -> list[Sample]:
    """An epoch's batches, labels and logits that depend on the epoch and the draw alone."""
    draws = list(sampler)
    parts = [stack(draws[i : i + B]) for i in range(0, len(draws), B)]
    return [part._replace(target=part.index % C) for part in parts]


def values_of(batch: Sample) -> dict[str, Tensor]:
    spread = (batch.index * 7 + batch.copy * 3 + batch.epoch * 5) % 11
    logits = torch.stack([spread.float() * k / 11 for k in range(C)], 1)
    return {"loss": F.cross_entropy(logits, batch.target, reduction="none"), "logits": logits}


def train(sampler: CoresetSampler, device: str, epochs: int = 3) -> None:
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        if sampler.refresh_due:
            sampler.refresh()
        for batch in batches(sampler):
            given = {name: part.to(device) for name, part in values_of(batch).items()}
            sampler.report(batch.to(device), **given)


def plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, tuple | list) else value


def known(sampler: CoresetSampler) -> Any:
    return plain((sampler.state_dict(), sampler.table.state_dict()))


@pytest.mark.parametrize("behind", [0, 1, 10**6])
@pytest.mark.parametrize("at_once", [False, True])
def test_what_is_known_is_what_it_is_on_the_cpu(pretended: Gpu, behind: int, at_once: bool) -> None:
    here, there = sampler_of(), sampler_of(report_at_once=at_once)
    train(here, "cpu")
    pretended.behind = behind
    train(there, "cuda")
    assert known(there) == known(here)
    assert plain(list(there)) == plain(list(here))


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_a_step_with_a_report_waits_for_nothing() -> None:
    sampler = sampler_of()
    given = [(batch.pin_memory().to("cuda"), values_of(batch)) for batch in batches(sampler)]
    steps = [(batch, {k: v.cuda() for k, v in values.items()}) for batch, values in given]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch, values in steps:
            sampler.report(batch, **values)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (sampler.table.visits >= 1).all()


def test_reports_at_once_wait(pretended: Gpu) -> None:
    sampler = sampler_of(report_at_once=True)
    batch = batches(sampler)[0]
    values = {name: part.cuda() for name, part in values_of(batch).items()}
    batch = batch.to("cuda")
    pretended.clear()
    sampler.report(batch, **values)
    assert pretended.waits.total() == 4  # loss, logits, target, weight
    sampler.report_at_once = False
    pretended.clear()
    sampler.report(batches(sampler)[1].to("cuda"), **values)
    assert not pretended.waits
    with pytest.raises(TypeError, match="report_at_once must be True or False, got 1"):
        sampler_of(report_at_once=1)


# What is wrong ------------------------------------------------------------------------------------


def reported(sampler: CoresetSampler, which: int, **changed: Any) -> Sample:
    """Report one batch of the epoch from the GPU, with some values changed there."""
    batch = batches(sampler)[which]
    values: dict[str, Any] = values_of(batch) | changed
    there = {k: v.cuda() if isinstance(v, Tensor) else v for k, v in values.items()}
    sampler.report(batch.to("cuda"), **there)
    return batch


LATER: dict[str, tuple[dict[str, Any], str]] = {
    "loss": ({"loss": torch.full((B,), torch.nan)}, "loss must be finite, got [78] non-finite"),
    "logits": ({"logits": torch.full((B, C), torch.inf)}, "logits must be finite"),
    "label": ({"target": torch.full((B,), C)}, "target must be in"),
    "several": ({"target": torch.ones(B, C)}, "target must be class labels where logits are given"),
}


@pytest.mark.parametrize("name", LATER)
def test_bad_values_raise_in_the_next_report_which_is_kept(pretended: Gpu, name: str) -> None:
    changed, words = LATER[name]
    sampler = sampler_of()
    sampler.set_epoch(1)
    bad = reported(sampler, 0, **changed)
    with pytest.raises(ValueError, match=words) as raised:
        reported(sampler, 1)
    raised.match(WORDING)
    first = ", ".join(map(str, bad.index[:5].tolist()))
    assert f"of epoch 1 and a batch that begins with samples {first}" in str(raised.value)
    assert "report_at_once" in str(raised.value)
    assert sampler.table.visits.nonzero().flatten().equal(batches(sampler)[1].index.sort().values)
    at_once = sampler_of(report_at_once=True)
    with pytest.raises(ValueError, match=words) as raised:
        reported(at_once, 0, **changed)
    assert "earlier" not in str(raised.value)


READS: dict[str, Callable[[CoresetSampler], Any]] = {
    "visits": lambda sampler: sampler.table.visits,
    "state": lambda sampler: sampler.table.state_dict(),
    "set_epoch": lambda sampler: sampler.set_epoch(0),
    "begin": lambda sampler: sampler.begin(0),
    "refresh": lambda sampler: sampler.refresh(),
    "copy": copy.deepcopy,
    "summary": summary.of_sampler,
}


@pytest.mark.parametrize("read", READS)
def test_bad_values_raise_where_the_table_is_read(pretended: Gpu, read: str) -> None:
    pretended.behind = 10**6
    sampler = sampler_of()
    before = known(sampler)
    reported(sampler, 0, loss=torch.full((B,), torch.nan))
    with pytest.raises(ValueError, match=r"loss must be finite, got [78] .* of epoch 0"):
        READS[read](sampler)
    assert known(sampler) == before
    READS[read](sampler)  # it is told once


SOON: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "rows": ({"loss": torch.ones(3)}, ValueError, "loss must have 8 rows"),
    "shape": ({"logits": torch.ones(B, C, 2)}, ValueError, r"logits must have shape \(8, width\)"),
    "dtype": ({"loss": torch.ones(B).long()}, TypeError, "loss must be floating"),
    "needs": ({"loss": None}, ValueError, "given loss for the rule"),
    "number": ({"loss": 1.0}, TypeError, "loss must be a tensor, got float"),
}


@pytest.mark.parametrize("name", SOON)
def test_what_needs_no_values_is_told_at_once(pretended: Gpu, name: str) -> None:
    changed, error, words = SOON[name]
    sampler = sampler_of()
    with pytest.raises(error, match=words):
        reported(sampler, 0, **changed)
    assert not sampler.table.visits.any()


def test_another_epoch_is_told_at_once(pretended: Gpu) -> None:
    sampler = sampler_of()
    old = batches(sampler)[0]
    sampler.set_epoch(1)
    there = {name: part.cuda() for name, part in values_of(old).items()}
    with pytest.raises(ValueError, match="batch must be of epoch 1, got 8 rows of epoch 0"):
        sampler.report(old.to("cuda"), **there)
    with pytest.raises(TypeError, match="batch must be the Sample batch"):
        sampler.report(old.input, **there)


# What may be where --------------------------------------------------------------------------------


def test_a_batch_that_is_on_the_gpu_as_a_whole(pretended: Gpu) -> None:
    here, there = sampler_of(), sampler_of()
    pretended.behind = 1
    for batch in batches(here):
        here.report(batch, **values_of(batch))
        moved = Sample(*(part.cuda() if isinstance(part, Tensor) else part for part in batch))
        there.report(moved, **{name: part.cuda() for name, part in values_of(batch).items()})
    assert known(there) == known(here)
    old = there.epoch
    there.set_epoch(1)
    there.report(moved, **{name: part.cuda() for name, part in values_of(batch).items()})
    with pytest.raises(ValueError, match=f"batch must be of epoch 1, got .* of epoch {old}"):
        there.table.labels.sum()


def test_reports_from_either_device_keep_their_order(pretended: Gpu) -> None:
    pretended.behind = 10**6
    sampler = sampler_of(strength=StableInfluence("loss", window=2))
    batch = batches(sampler)[0]
    for step, device in enumerate(["cuda", "cpu", "cuda", "cpu"]):
        sampler.report(batch.to(device), loss=torch.full((B,), float(step), device=device))
    losses = sampler.table.state_dict()["columns"]["losses"][0]
    assert losses[batch.index].eq(3).all()


def test_plain_numbers_are_those_of_every_row(pretended: Gpu) -> None:
    for device in ("cpu", "cuda"):
        sampler = sampler_of()
        batch = Sample(None, None, torch.arange(4), torch.ones(4), torch.zeros(4)).to(device)
        sampler.report(batch, loss=torch.arange(4.0, device=device))
        assert sampler.table.visits[:5].tolist() == [1, 1, 1, 1, 0]


def test_a_refresh_knows_the_last_report_and_ends_its_period(pretended: Gpu) -> None:
    pretended.behind = 10**6
    sampler = CoresetSampler(range(N), Rank(Loss()), count=4, refresh=Every(1, warmup=1))
    for batch in batches(sampler):
        sampler.report(batch.to("cuda"), loss=batch.index.float().cuda())
    chosen = sampler.begin(1)
    assert chosen is not None
    assert chosen.indices.sort().values.tolist() == [20, 21, 22, 23]


# Memory that is used again ------------------------------------------------------------------------


def test_a_captured_step_and_a_smaller_last_batch(pretended: Gpu) -> None:
    """What a graph returns is overwritten by its next replay, before reports are read."""
    pretended.behind = 1
    torch.manual_seed(0)
    model = nn.Linear(4, C).cuda()
    x, y = torch.zeros(B, 4).cuda(), torch.zeros(B).long().cuda()

    def step(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits = model(x)
        return F.cross_entropy(logits, y, reduction="none"), logits

    step(x, y)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), torch.no_grad():
        captured = step(x, y)
    here, there = (sampler_of(count=5, fraction=None) for _ in range(2))
    inputs = torch.randn(N, 4)
    sizes = set()
    for batch in batches(here):
        expected = step(inputs[batch.index].cuda(), batch.target.cuda())
        here.report(batch, loss=expected[0].cpu(), logits=expected[1].cpu())
        moved = batch._replace(input=inputs[batch.index]).to("cuda")
        sizes.add(len(batch.index))
        if len(batch.index) == B:
            x.copy_(moved.input)
            y.copy_(moved.target)
            graph.replay()
            loss, logits = captured
        else:
            loss, logits = step(moved.input, moved.target)
        there.report(moved, loss=loss, logits=logits)
    assert sizes == {B, 29 % B}
    assert known(there) == known(here)


def test_a_compiled_model_that_uses_its_memory_again(pretended: Gpu) -> None:
    pretended.behind = 1
    model = torch.compile(nn.Linear(4, C).cuda(), mode="reduce-overhead")
    sampler = sampler_of(strength=StableInfluence("loss", window=2))
    inputs = torch.randn(N, 4)
    for batch in batches(sampler):
        logits = model(inputs[batch.index].cuda())
        losses = F.cross_entropy(logits, batch.target.cuda(), reduction="none")
        sampler.report(batch.to("cuda"), loss=losses, logits=logits)
    assert (sampler.table.visits >= 1).all()
    assert isinstance(sampler, Reporting)
