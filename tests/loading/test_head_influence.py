"""The influence on the head's last change, against forward-mode differentiation."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.utils.data import DataLoader, TensorDataset

from augloader import CoresetSampler, StableInfluence, Uniform, WeightedAugmentedDataset
from augloader.loading import HeadInfluence

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:FutureWarning")


def network(bias: bool = True, seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, 5, bias=bias)
        )


def images(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, 8, 8, generator=random), torch.randint(5, (n,), generator=random)


def flipped(x: Tensor, strength: float) -> Tensor:
    return x * (1 - 2 * strength)


def head_of(model: nn.Module) -> dict[str, Tensor]:
    return {k: p.detach().clone() for k, p in model.named_parameters() if k.startswith("3.")}


def along(model: nn.Module, before: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    """<grad L_i, theta_{t-1} - theta_t> of the head, by forward-mode differentiation."""
    now = head_of(model)
    twin = network("3.bias" in now).double()
    twin.load_state_dict(model.state_dict())

    def losses(head: dict[str, Tensor]) -> Tensor:
        logits = functional_call(twin, head, (x.double(),))
        return F.cross_entropy(logits, y, reduction="none")

    back = {name: (before[name].double() - now[name].double()) for name in now}
    found: Tensor = jvp(losses, ({k: v.double() for k, v in now.items()},), (back,))[1]
    return found


@given(st.booleans(), st.booleans(), st.integers(1, 12), st.integers(0, 99))
def test_it_is_the_inner_product_with_the_last_step(
    bias: bool, soft: bool, n: int, seed: int
) -> None:
    model, (x, y) = network(bias, seed), images(n, seed)
    target = F.one_hot(y, 5).double().roll(1, 0) * 0.3 + F.one_hot(y, 5) * 0.7 if soft else y
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    influence = HeadInfluence(model)
    for step in range(4):
        before = head_of(model)
        if step:
            F.cross_entropy(model(x.flip(0)), y).backward()
            optimizer.step()
            optimizer.zero_grad()
        for _ in range(2):  # a second pass without a step: still of the last one
            with influence:
                logits = model(x)
            found = influence(logits, target)
            expected = along(model, before, x, target)
            assert found.dtype == torch.float32
            torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)
        assert bool(found.any()) == (step > 0)


def test_the_step_may_come_before_or_after_the_question() -> None:
    x, y = images(6)
    found = []
    for late in (False, True):
        model = network()
        optimizer, influence = torch.optim.SGD(model.parameters(), lr=0.1), HeadInfluence(model)
        for _ in range(3):
            with influence:
                logits = model(x)
            asked = None if late else influence(logits, y)
            optimizer.zero_grad()
            F.cross_entropy(logits, y).backward()
            optimizer.step()
            found.append(influence(logits, y) if asked is None else asked)
    assert found[2].any()
    for early, later in zip(found[:3], found[3:], strict=True):
        assert torch.equal(early, later)


def test_autocast_changes_little() -> None:
    model, (x, y) = network(), images(6)
    before, influence = head_of(model), HeadInfluence(model)
    with torch.no_grad():
        for p in model[3].parameters():
            p.mul_(0.5)
    with torch.autocast("cpu", torch.bfloat16):
        with influence:
            logits = model(x)
        found = influence(logits, y)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), along(model, before, x, y), rtol=0.1, atol=0.05)


def test_a_training_learns_strengths_from_it_and_resumes() -> None:
    def parts() -> Any:
        data = WeightedAugmentedDataset(TensorDataset(*images(40)), strong=flipped)
        rule = StableInfluence("gradient", window=2)
        sampler = CoresetSampler(data, Uniform(), fraction=0.5, strength=rule, seed=3)
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return data, sampler, model, optimizer, HeadInfluence(model)

    def epoch(made: Any, number: int) -> None:
        data, sampler, model, optimizer, influence = made
        sampler.set_epoch(number)
        if sampler.refresh_due:
            sampler.refresh()
        for batch in DataLoader(data, batch_size=16, sampler=sampler):
            with influence:
                logits = model(batch.input)
            loss = F.cross_entropy(logits, batch.target, reduction="none")
            optimizer.zero_grad()
            loss.mean().backward()
            optimizer.step()
            sampler.report(batch, loss=loss, influence=influence(logits, batch.target))

    whole = parts()
    for number in range(5):
        epoch(whole, number)
    cut = parts()
    for number in range(3):
        epoch(cut, number)
    resumed = parts()
    for old, new in zip(cut[1:], resumed[1:], strict=True):
        new.load_state_dict(old.state_dict())
    resumed[1].table.load_state_dict(cut[1].table.state_dict())
    for number in range(3, 5):
        epoch(resumed, number)
    memories = [made[1].table.state_dict()["memory"] for made in (whole, resumed)]
    assert memories[0].keys() == {"window", "variance", "visits"}
    assert memories[0]["variance"].all()
    for name, values in memories[0].items():
        assert torch.equal(values, memories[1][name]), name
    whole[1].set_epoch(5)
    assert len(set(whole[1].strengths.tolist())) > 20


def test_wrong_heads_and_states() -> None:
    with pytest.raises(ValueError, match="head must be a module of the model"):
        HeadInfluence(network(), "fc")
    with pytest.raises(TypeError, match=r"head '0' must be an nn\.Linear, got Conv2d"):
        HeadInfluence(network(), "0")
    influence, y = HeadInfluence(network()), images(3)[1]
    with pytest.raises(RuntimeError, match="must be called in the forward pass"):
        influence(torch.zeros(3, 5), y)
    model = nn.Sequential(nn.Linear(2, 2), nn.Softmax(1))
    other = HeadInfluence(model)
    with other:
        logits = model(torch.randn(3, 2))
    with pytest.raises(ValueError, match="must return the model's logits"):
        other(logits, torch.zeros(3, dtype=torch.int64))
    frozen = network().requires_grad_(False)
    with pytest.raises(ValueError, match=r"head '\d' must be trained, got one that is frozen"):
        HeadInfluence(frozen)
    state = influence.state_dict()
    with pytest.raises(ValueError, match=r"state must be of a head of \(2, 3\) parameters"):
        other.load_state_dict(state)
    with pytest.raises(ValueError, match="got none of change"):
        influence.load_state_dict({"version": 1, "weights": state["weights"]})


def test_after_an_error_it_goes_on() -> None:
    model, y = nn.Sequential(nn.Linear(2, 2)), torch.zeros(3, dtype=torch.int64)
    influence = HeadInfluence(model)
    with influence:
        logits = model(torch.randn(3, 2))
    with pytest.raises(ValueError, match=r"logits \(3, 2\), got other values\. Name the layer"):
        influence(2 * logits, y)
    with influence:
        logits = model(torch.randn(3, 2))
    assert influence(logits, y).tolist() == [0, 0, 0]
