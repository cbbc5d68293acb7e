"""What the stacks train on: few samples, a transform that leaves a trace, and what was planned."""

from collections import Counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from augloader import (
    CoresetSampler,
    DistributedCoresetSampler,
    Every,
    LossRank,
    Proportional,
    Sample,
    WeightedAugmentedDataset,
)
from augloader.selection import Loss

N, BATCH, EPOCHS, CLASSES, COPIES = 41, 8, 3, 3, 12
Row = tuple[int, int, int, float, float]  # epoch, index, copy, weight, strength


def mark(image: Tensor, strength: float) -> Tensor:
    """A strong transform that leaves a trace in the last column, whatever the strength."""
    return torch.cat([image[..., :-1], torch.full_like(image[..., -1:], 9.0)], -1)


def images() -> TensorDataset:
    x = torch.randn(N, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return TensorDataset(x, torch.arange(N) % CLASSES)


def dataset() -> WeightedAugmentedDataset:
    return WeightedAugmentedDataset(images(), strong=mark)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES))


class Planned(CoresetSampler):
    """A sampler of growing epochs that writes down what was selected, from which epoch on."""

    def __init__(self, data: Any = None, **options: Any) -> None:
        given = {"fraction": 0.3, "refresh": Every(1, warmup=1), "strength": LossRank()}
        super().__init__(dataset() if data is None else data, Proportional(Loss()),
                         **{**given, **options})  # fmt: skip
        self.chosen: dict[int, set[int]] = {}

    def refresh(self, *given: Any, **options: Any) -> Any:
        selection = super().refresh(*given, **options)
        self.chosen[self.epoch] = set(selection.indices.tolist())
        return selection


class PlannedRank(Planned, DistributedCoresetSampler):
    """One rank of it."""


class Seen:
    """The draws that were trained on, in order."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def add(self, batch: Sample) -> None:
        """Write a batch down: its targets are those of its draws, and the strong ones marked."""
        if batch.input is not None:
            marked = (batch.input[..., -1] == 9).flatten(1).all(1)
            assert torch.equal(marked, batch.strength > 0)
            assert torch.equal(batch.target, batch.index % CLASSES)
        columns = zip(
            batch.keys.tolist(), batch.weight.tolist(), batch.strength.tolist(), strict=True
        )
        self.rows += [(*key, weight, strength) for key, weight, strength in columns]

    def require_planned(self, chosen: dict[int, set[int]], epochs: int = EPOCHS) -> None:
        """Each sample came once an epoch, the selected ones once more, and no other was strong."""
        for epoch in range(epochs):
            mine = [row for row in self.rows if row[0] == epoch and row[3] > 0]
            strong = chosen.get(epoch, set())
            assert len(strong) == (COPIES if epoch else 0)
            wanted = Counter([(i, 0) for i in range(N)] + [(j, 1) for j in strong])
            assert Counter((i, copy) for _, i, copy, *_ in mine) == wanted
            assert all(copy == 1 or strength == 0 for _, _, copy, _, strength in mine)
        assert {epoch for epoch, *_ in self.rows} == set(range(epochs))


def require_reported(sampler: CoresetSampler, model: nn.Module) -> None:
    """The table holds of each sample what the model, which did not change, says of it."""
    x, y = images().tensors
    known = sampler.table.evidence()
    with torch.no_grad():
        expected = F.cross_entropy(model(x), y, reduction="none")
    assert known.losses is not None
    assert known.labels is not None
    torch.testing.assert_close(known.losses, expected)
    assert torch.equal(known.labels, y)


def steps(logits: Tensor, batch: Sample) -> tuple[Tensor, Tensor]:
    """Return a batch's losses, and their weighted mean."""
    losses = F.cross_entropy(logits, batch.target, reduction="none")
    return losses, (losses * batch.weight).mean()
