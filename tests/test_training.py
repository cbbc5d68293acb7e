"""The user's loop, end to end, with worker processes."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from augloader import (
    CoresetSampler,
    Every,
    FacilityLocation,
    LastLayerGradient,
    WeightedAugmentedDataset,
    sweep,
)

N, EPOCHS = 90, 3


def mark(x: Tensor) -> Tensor:
    """A strong transform that leaves a trace in a channel of its own."""
    return x.clone().index_fill_(0, torch.tensor(4), 1)


def images() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(N) % 3
    x = torch.randn(N, 5, generator=generator) + F.one_hot(labels, 5) * 3
    x[:, 4] = 0
    return TensorDataset(x, labels)


def train(start: str | None) -> tuple[list[Any], nn.Module, list[set[int]]]:
    torch.manual_seed(0)
    data = WeightedAugmentedDataset(images(), strong=mark)
    sampler = CoresetSampler(data, FacilityLocation(), fraction=0.3, refresh=Every(2), seed=1)
    loader = DataLoader(
        data,
        batch_size=16,
        sampler=sampler,
        num_workers=2 if start else 0,
        multiprocessing_context=start,
        persistent_workers=start is not None,
    )
    model = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen, selections = [], []
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        if sampler.refresh_due:
            selection = sampler.refresh(sweep(model, data, LastLayerGradient()))
            selections.append(set(selection.indices.tolist()))
        assert len(loader) == -(-len(sampler) // 16)
        for batch in loader:
            logits = model(batch.input)
            loss = F.cross_entropy(logits, batch.target, reduction="none")
            optimizer.zero_grad()
            (loss * batch.weight).mean().backward()
            optimizer.step()
            sampler.report(batch, loss=loss, logits=logits)
            for row in zip(batch.index, batch.copy, batch.strength, batch.weight, batch.input):  # noqa: B905
                seen.append((epoch, *(value.tolist() for value in row)))
    return seen, model, selections


@pytest.mark.parametrize("start", [None, "fork", "spawn"])
def test_exactly_the_selected_samples_come_strong(start: str | None) -> None:
    seen, model, selections = train(start)
    assert len(selections) == 2
    assert len(seen) == EPOCHS * (N + 27)
    for epoch in range(EPOCHS):
        rows = [row for row in seen if row[0] == epoch]
        strong = [row for row in rows if row[3] > 0]
        expected = selections[0] if epoch < 2 else selections[1]
        # The trace is in the pixels: workers really applied it to these draws and no others.
        assert {row[1] for row in rows if row[5][4] == 1} == expected
        assert {row[1] for row in strong} == expected
        assert len(strong) == len(expected) == 27
        assert all((row[3] > 0) == (row[5][4] == 1) == (row[2] == 1) for row in rows)
        assert sorted(row[1] for row in rows if row[3] == 0) == list(range(N))
    x, y = images().tensors
    with torch.no_grad():
        assert (model(x).argmax(1) == y).float().mean() > 0.9


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_change_nothing(start: str) -> None:
    plain, workers = train(None), train(start)
    assert plain[0] == workers[0]
    assert plain[2] == workers[2]
