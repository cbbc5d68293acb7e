"""Risks are those of views made by hand, the same in every call, and leave everything as it was."""

import random
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from augloader import (
    AdaptiveStrengthTransform,
    Draw,
    HardestOf,
    Mixup,
    Sample,
    Uniform,
    WeightedAugmentedDataset,
    wrap,
)
from augloader.augment import translations
from augloader.diagnostics import Risk, RiskGap, risk_gap
from tests.reference import random_state

N = 14
IMAGES = torch.rand(N, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(N) % 3
PLAIN = TensorDataset(IMAGES, LABELS)


def network() -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Linear(64, 3))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / 4)
    return model


def risk(model: nn.Module, x: Tensor, target: Tensor = LABELS) -> Risk:
    """Return loss and accuracy of one plain pass."""
    model.eval()
    with torch.no_grad():
        logits = model(x)
    labels = target if target.ndim == 1 else target.argmax(1)
    loss = float(F.cross_entropy(logits, target))
    return Risk(loss, float((logits.argmax(1) == labels).double().mean()))


def near(found: Risk | None, expected: Risk) -> bool:
    assert found is not None
    assert found.accuracy == pytest.approx(expected.accuracy)
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)
    return True


def keys(epoch: int, copy: int = 1) -> Tensor:
    return torch.stack([torch.full((N,), epoch), torch.arange(N), torch.full((N,), copy)], 1)


def darker(x: Tensor) -> Tensor:
    return x / 2


def noisy(x: Tensor) -> Tensor:
    """Draw from all three global random states."""
    return (x * torch.rand(1) + random.random() + np.random.rand()) / 3  # noqa: NPY002


@pytest.mark.parametrize("batch_size", [5, 64])
def test_by_hand(batch_size: int) -> None:
    model, strong = network(), AdaptiveStrengthTransform("trivial", seed=3)
    data = WeightedAugmentedDataset(PLAIN, weak=darker, final=lambda x: 1 - x)
    found = risk_gap(model, data, strong, epoch=4, strength=0.75, batch_size=batch_size)
    assert near(found.clean, risk(model, 1 - IMAGES))
    weak = 1 - IMAGES / 2
    assert near(found.weak, risk(model, weak))
    assert near(found.strong, risk(model, strong(weak, 0.75, keys=keys(4))))
    assert found.strong is not None
    assert found.gap == found.strong.loss - found.clean.loss
    assert found.epoch == 4


def test_the_same_seed_and_epoch_give_the_same_views_and_others_others() -> None:
    model, strong = network(), AdaptiveStrengthTransform("rand")
    data = WeightedAugmentedDataset(PLAIN, weak=noisy)
    options: dict[str, Any] = {"batch_size": 4}
    one = risk_gap(model, data, strong, epoch=1, **options)
    random.seed(5)
    assert risk_gap(model, data, strong, epoch=1, num_workers=2, **options) == one
    other = risk_gap(model, data, strong, epoch=2, **options)
    assert other.clean == one.clean
    assert other.weak != one.weak
    assert other.strong != one.strong
    seeded = risk_gap(model, data, strong, epoch=1, seed=1, **options)
    assert seeded.clean == one.clean
    assert seeded.weak != one.weak


def test_rows_do_not_depend_on_their_batch() -> None:
    model, data = network(), WeightedAugmentedDataset(PLAIN, weak=noisy)
    found = [risk_gap(model, data, batch_size=size).weak for size in (1, 5, N)]
    assert near(found[0], found[1] or Risk(0, 0))
    assert near(found[0], found[2] or Risk(0, 0))


def test_the_model_and_the_random_states_are_left_as_they_were() -> None:
    model = network()
    next(m for m in model.modules() if isinstance(m, nn.Dropout)).eval()
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    before = random_state()
    data = WeightedAugmentedDataset(PLAIN, weak=noisy)
    risk_gap(model, data, lambda batch: batch._replace(input=noisy(batch.input)))
    assert str(random_state()) == str(before)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


def test_copies_are_averaged() -> None:
    model, strong = network(), AdaptiveStrengthTransform("trivial")
    found = risk_gap(model, PLAIN, strong, copies=3).strong
    views = [risk(model, strong(IMAGES, 1.0, keys=keys(0, copy))) for copy in (1, 2, 3)]
    assert near(
        found,
        Risk(sum(view.loss for view in views) / 3, sum(view.accuracy for view in views) / 3),
    )


def test_a_strong_transform_of_the_dataset_and_a_list_of_them() -> None:
    model = network()
    inside = WeightedAugmentedDataset(PLAIN, strong=darker)
    found = risk_gap(model, inside)
    assert found.weak is None
    assert near(found.strong, risk(model, IMAGES / 2))
    moves = translations(1)
    everywhere = WeightedAugmentedDataset(PLAIN, weak=darker, strong=moves)
    found = risk_gap(model, everywhere)
    views = [
        risk(model, torch.stack([everywhere[Draw(i, copy)].input for i in range(N)]))
        for copy in range(1, len(moves) + 1)
    ]
    assert near(
        found.strong,
        Risk(
            sum(view.loss for view in views) / len(moves),
            sum(view.accuracy for view in views) / len(moves),
        ),
    )
    assert near(found.weak, risk(model, IMAGES / 2))
    with pytest.raises(ValueError, match=rf"copies must be {len(moves)}, the transforms in strong"):
        risk_gap(model, everywhere, copies=2)


def test_refinement_has_a_weak_view_alone() -> None:
    model, data = network(), WeightedAugmentedDataset(PLAIN, weak=darker)
    found = risk_gap(model, data)
    assert found.strong is None
    assert near(found.weak, risk(model, IMAGES / 2))
    assert found.weak is not None
    assert found.gap == found.weak.loss - found.clean.loss


def test_normalisation_by_the_transform_is_that_of_all_views() -> None:
    model = network()
    strong = AdaptiveStrengthTransform("trivial", mean=(0.5,), std=(0.25,))
    data = WeightedAugmentedDataset(PLAIN, weak=darker)
    found = risk_gap(model, data, strong)
    assert near(found.clean, risk(model, (IMAGES - 0.5) / 0.25))
    assert near(found.weak, risk(model, (IMAGES / 2 - 0.5) / 0.25))


def test_mixed_targets() -> None:
    model, mix = network(), Mixup(num_classes=3, seed=2)
    found = risk_gap(model, PLAIN, mix, batch_size=N, epoch=1)
    batch = Sample(
        IMAGES,
        LABELS,
        torch.arange(N),
        torch.ones(N),
        torch.ones(N),
        torch.ones(N, dtype=torch.int64),
        torch.ones(N, dtype=torch.int64),
    )
    mixed = mix(batch)
    assert mixed.mixed.any()
    assert near(found.clean, risk(model, IMAGES))
    assert near(found.strong, risk(model, mixed.input, mixed.target))


def test_targets_may_be_mixed_in_some_batches_alone() -> None:
    model, mix = network(), Mixup(num_classes=3, seed=2)

    def some(batch: Sample) -> Sample:
        return mix(batch) if int(batch.index[0]) == 0 else batch

    found = risk_gap(model, PLAIN, some, batch_size=7).strong
    first = risk_gap(model, TensorDataset(IMAGES[:7], LABELS[:7]), mix, batch_size=7).strong
    assert first is not None
    model.eval()
    with torch.no_grad():
        rest = float(F.cross_entropy(model(IMAGES[7:]), LABELS[7:]))
    assert found is not None
    assert found.loss == pytest.approx((first.loss + rest) / 2, rel=1e-5)


class Wordy(nn.Module):
    """A model that returns an object, as many do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"logits": self.inner(images)}


def test_a_forward_of_ones_own_is_given_the_augmented_batch() -> None:
    model, strong = Wordy(), AdaptiveStrengthTransform("trivial")
    found = risk_gap(
        model,
        PLAIN,
        strong,
        forward=lambda model, batch: (model(batch.input)["logits"], batch.target),
    )
    assert found == risk_gap(model.inner, PLAIN, strong)


def test_a_random_dataset_says_so_and_gives_the_same_view() -> None:
    class Random(TensorDataset):
        def __getitem__(self, index: int) -> Any:
            return noisy(IMAGES[index]), int(LABELS[index])

    model, strong = network(), AdaptiveStrengthTransform("trivial", dtype=torch.float32)
    data = WeightedAugmentedDataset(Random(IMAGES), final=lambda x: x.clamp(0, 1))
    with pytest.warns(UserWarning, match="data drew random numbers") as caught:
        one = risk_gap(model, data, strong)
    assert len(caught) == 1  # of the clean view: the others are random by nature
    with pytest.warns(UserWarning, match="data drew random numbers"):
        again = risk_gap(model, data, strong, batch_size=3)
    assert one.strong is not None
    assert near(again.strong, one.strong)


def test_what_it_refuses() -> None:
    model, strong = network(), AdaptiveStrengthTransform("trivial")
    with pytest.raises(ValueError, match="strong must be given where the data have no transform"):
        risk_gap(model, PLAIN)
    with pytest.raises(TypeError, match="strong must be callable on a batch, got str"):
        risk_gap(model, PLAIN, "trivial")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"strong must return a Sample for a Sample, got Tensor"):
        risk_gap(model, PLAIN, lambda batch: batch.input)
    hardest = HardestOf(strong, candidates=3, keep=2)
    with pytest.raises(ValueError, match=r"strong must keep the 14 rows of a batch, got 28"):
        risk_gap(model, PLAIN, lambda batch: hardest(batch, model))
    with pytest.raises(ValueError, match=r"strength must be in \(0, 1\], got 0"):
        risk_gap(model, PLAIN, strong, strength=0)
    with pytest.raises(ValueError, match="epoch must be at least 0, got -1"):
        risk_gap(model, PLAIN, strong, epoch=-1)
    with pytest.raises(ValueError, match="copies must be at least 1, got 0"):
        risk_gap(model, PLAIN, strong, copies=0)
    with pytest.raises(TypeError, match="seed must be an int, got None"):
        risk_gap(model, PLAIN, strong, seed=None)  # type: ignore[arg-type]
    wrapped, _ = wrap(DataLoader(PLAIN, batch_size=4), Uniform(), fraction=0.5)
    with pytest.raises(TypeError, match="data must give Samples, got the dataset of a wrapped"):
        risk_gap(model, wrapped.dataset, strong)
    with pytest.raises(ValueError, match=r"target must be in \[0, 3\), got 14 labels outside"):
        risk_gap(model, TensorDataset(IMAGES, LABELS + 3), strong)
    with pytest.raises(TypeError, match="forward must return logits and targets, got Tensor"):
        risk_gap(model, PLAIN, strong, forward=lambda model, batch: model(batch.input))
    with pytest.raises(TypeError, match=r"collate_fn must return a Sample batch for strong, got"):
        risk_gap(model, PLAIN, strong, collate_fn=lambda rows: [row.input for row in rows])


def test_a_gap_is_a_value() -> None:
    made = RiskGap(0, Risk(1.0, 0.5), Risk(1.5, 0.5), None)
    assert made.gap == 0.5
    assert made == RiskGap(0, Risk(1.0, 0.5), Risk(1.5, 0.5), None)
