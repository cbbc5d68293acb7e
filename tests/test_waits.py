"""Where the host waits for the GPU in a training, counted on a pretended one, by function."""

from collections import Counter
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from augloader import (
    AdaptiveStrengthTransform,
    CoresetSampler,
    CutMix,
    Every,
    FacilityLocation,
    LastLayerGradient,
    ManifoldMixup,
    Mixup,
    Sample,
    StableInfluence,
    WeightedAugmentedDataset,
    sweep,
)
from augloader.augment.pixels import fused
from tests.pretend_cuda import Gpu

pytestmark = pytest.mark.filterwarnings("ignore:.*are augmented without the fused kernels")
N, C, B = 64, 4, 16
POLICIES = ("trivial", "rand", "auto", "augmix")
# Of a sweep: what it checks, once; of a selection: its labels, a graph's capture, a look whether
# all is done, and the result.
OF_A_REFRESH = {
    "item sweeping.py _require_sound": 1,
    "copy to CPU facility.py groups": 1,
    "synchronize batched.py _begun": 1,
    "copy to CPU transfer.py fetched": 2,
}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 8 * 8, C)

    def forward(self, images: Tensor) -> Tensor:
        scaled = images if images.is_floating_point() else images.float() / 255
        out: Tensor = self.head(scaled.flatten(1))
        return out


def made(dtype: torch.dtype) -> tuple[WeightedAugmentedDataset, CoresetSampler, Net]:
    torch.manual_seed(0)
    images = torch.rand(N, 3, 8, 8)
    images = (images * 255).to(dtype) if dtype == torch.uint8 else images.to(dtype)
    data = WeightedAugmentedDataset(TensorDataset(images, torch.arange(N) % C))
    rule = StableInfluence(window=2)
    sampler = CoresetSampler(
        data, FacilityLocation(), fraction=0.5, strength=rule, refresh=Every(2)
    )
    return data, sampler, Net().cuda()


def loader_of(data: Any, sampler: CoresetSampler) -> list[Sample]:
    """An epoch's batches, in pinned memory as by pin_memory=True, which needs a device's thread."""
    loader = DataLoader(data, batch_size=B, sampler=sampler, generator=torch.Generator())
    return [batch.pin_memory() for batch in loader]


def found(gpu: Gpu) -> Counter[str]:
    """How often the host waited: for what, in which file and function."""
    waits: Counter[str] = Counter()
    for (what, at), count in gpu.waits.items():
        line, function = at.rsplit(" ", 1)
        waits[f"{what} {line.split(':')[0]} {function}"] += count
    return waits


@pytest.fixture(autouse=True)
def without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pretended device runs no Triton kernels: images of bytes take the dense way."""
    monkeypatch.setattr(fused, "available", lambda: False)


@pytest.mark.parametrize("mixing", [None, Mixup, CutMix, ManifoldMixup])
def test_a_training_step_waits_for_nothing(pretended: Gpu, mixing: Any) -> None:
    data, sampler, model = made(torch.uint8)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    strong = AdaptiveStrengthTransform("trivial", dtype=torch.float32)
    for epoch in range(2):
        sampler.set_epoch(epoch)
        if sampler.refresh_due:
            sampler.refresh(sweep(model, data, LastLayerGradient(), autocast=False))
        batches = loader_of(data, sampler)
        assert {len(batch.index) for batch in batches} == {B}
        pretended.clear()
        for given in batches:
            batch = given.to("cuda")
            batch = batch._replace(input=strong(batch.input, batch.strength))
            if mixing is ManifoldMixup:
                with mixing(model, [""], C)(batch) as batch:
                    logits = model(batch.input)
            else:
                batch = batch if mixing is None else mixing(C)(batch)
                logits = model(batch.input)
            loss = F.cross_entropy(logits, batch.target, reduction="none")
            (loss * batch.weight).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            sampler.report(batch, loss=loss, logits=logits)
        assert not found(pretended)
    assert int(sampler.table.visits.sum()) >= N


def test_an_epoch_that_selects_nothing_waits_for_the_last_report_alone(pretended: Gpu) -> None:
    data, sampler, model = made(torch.uint8)
    sampler.refresh(sweep(model, data, LastLayerGradient(), autocast=False))
    pretended.behind = 10**6  # nothing has arrived yet
    batch = loader_of(data, sampler)[0].to("cuda")
    logits = model(batch.input)
    loss = F.cross_entropy(logits, batch.target, reduction="none")
    sampler.report(batch, loss=loss, logits=logits)
    pretended.clear()
    sampler.set_epoch(0)
    assert found(pretended) == {"synchronize pending.py settle": 1}


def test_where_a_refresh_waits(pretended: Gpu) -> None:
    data, sampler, model = made(torch.uint8)
    sweep(model, data, LastLayerGradient(), autocast=False)
    pretended.clear()
    sampler.begin(0, lambda: sweep(model, data, LastLayerGradient(), autocast=False))
    assert found(pretended) == OF_A_REFRESH


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_where_a_transform_waits(pretended: Gpu, policy: Any, dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(0)
    images = torch.rand(2 * B, 3, 8, 8, generator=random)
    images = (images * 255).to(dtype) if dtype == torch.uint8 else images
    strong, there = AdaptiveStrengthTransform(policy), images.cuda()
    pretended.clear()
    for _ in range(2):
        strong(there, torch.linspace(0, 1, 2 * B))
    assert not found(pretended)
