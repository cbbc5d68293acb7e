"""Batches to mix, their mixtures row by row, and a model: shared by the tests of mixing."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from augloader import Sample
from augloader.augment import Mixing

C = 4
WORDING = r"(?s)^\S.* must .+, got .+\. \S"  # <name> must be <rule>, got <value>. <what to do>
seeds = st.integers(0, 2**32 - 1)
gammas = st.floats(0.01, 20)
portions = st.sampled_from([0.0, 1.0]) | st.floats(0, 1, width=32)
masses = st.just(0.0) | st.floats(2**-20, 100, width=32)


def rows(
    b: int = 8,
    shape: tuple[int, ...] = (3, 6, 5),
    *,
    strength: float | list[float] = 1.0,
    epoch: int = 0,
    seed: int = 0,
) -> Sample:
    """A batch of random images, classes and weights."""
    random = torch.Generator().manual_seed(seed)
    return Sample(
        torch.rand(b, *shape, generator=random),
        torch.randint(C, (b,), generator=random),
        torch.randperm(5000, generator=random)[:b],
        torch.rand(b, generator=random) * 3,
        torch.tensor(strength).expand(b),
        torch.arange(b),
        torch.full((b,), epoch),
        {"name": [str(i) for i in range(b)]},
    )


@st.composite
def batches(draw: Any) -> Sample:
    b = draw(st.integers(2, 40))
    strength = draw(st.lists(portions, min_size=b, max_size=b))
    weight = draw(st.lists(masses, min_size=b, max_size=b))
    batch = rows(b, (2, 5), strength=strength, seed=draw(seeds))
    return batch._replace(weight=torch.tensor(weight))


def blended(mixing: Mixing, x: Tensor) -> Tensor:
    """lam_i x_i + (1 - lam_i) x_partner(i), row by row in float64."""
    out = x.double().clone()
    for i, (j, lam) in enumerate(zip(mixing.partner.tolist(), mixing.lam.tolist(), strict=True)):
        out[i] = lam * x[i].double() + (1 - lam) * x[j].double()
    return out


def targets(mixing: Mixing, weight: Tensor, y: Tensor) -> Tensor:
    """(lam w_i y_i + (1 - lam) w_j y_j) / w row by row in float64; by lam alone where w is 0."""
    out = torch.empty_like(y, dtype=torch.float64)
    w = weight.tolist()
    for i, (j, lam) in enumerate(zip(mixing.partner.tolist(), mixing.lam.tolist(), strict=True)):
        own, other = lam * w[i], (1 - lam) * w[j]
        if own + other == 0:
            own, other = lam, 1 - lam
        out[i] = (own * y[i].double() + other * y[j].double()) / (own + other)
    return out


def same(a: Any, b: Any) -> bool:
    """Whether two samples or fields are equal bit for bit."""
    if isinstance(a, Sample):
        return all(same(x, y) for x, y in zip(a, b, strict=True))
    return torch.equal(a, b) if isinstance(a, Tensor) else bool(a == b)


def copied(batch: Sample) -> Sample:
    return Sample(*(part.clone() if isinstance(part, Tensor) else part for part in batch))


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(90, 12), nn.ReLU(), nn.Linear(12, C))


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def loss_of(logits: Tensor, batch: Sample) -> Tensor:
    losses = F.cross_entropy(logits, batch.target, reduction="none")
    mean: Tensor = (losses * batch.weight).mean()
    return mean


def soft_rows() -> Sample:
    random = torch.Generator().manual_seed(0)
    batch = rows(16, strength=[1, 1, 0, 0.5] * 4)
    return batch._replace(target=torch.rand(16, C, generator=random).softmax(1))


@contextmanager
def without_waiting() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def assert_as_on_the_cpu(there: Sample, here: Sample) -> None:
    assert here.mixed.any()
    assert there.mixed.equal(here.mixed)
    for name in ("input", "target", "weight"):
        found = getattr(there, name)
        assert found.is_cuda
        torch.testing.assert_close(found.cpu(), getattr(here, name), rtol=1e-5, atol=1e-6)


def assert_worded(raised: pytest.ExceptionInfo[Exception]) -> None:
    """<name> must be <rule>, got <value>. <what to do>."""
    assert raised.match(WORDING)
