"""What fails on one rank is raised on all, and none waits for another."""

import pytest
import torch

from augloader import (
    CoresetSampler,
    FacilityLocation,
    LastLayerGradient,
    LayerGradient,
    Uniform,
    sweep,
)
from tests.distributed.ranks import (
    FAILURES,
    WORLDS,
    Found,
    data,
    generator,
    influences,
    model,
    same,
)


@pytest.mark.parametrize("world", WORLDS)
def test_the_shares_of_a_sweep_are_the_data(found: Found, world: int) -> None:
    net = model()
    with torch.no_grad():  # the running means of rank 0
        net(torch.randn(8, 5, generator=torch.Generator().manual_seed(0)))
    for n in (70, 2):
        alone = sweep(net, data(n), LastLayerGradient())
        assert alone.losses is not None
        assert alone.labels is not None
        seen = []
        for r, rank in enumerate(found[world]):
            indices, labels, losses = rank["sweeping"][n]
            seen += indices.tolist()
            assert set(range(r, n, world)) <= set(indices.tolist())
            if len(indices):
                assert torch.equal(labels, alone.labels[indices])
                torch.testing.assert_close(losses, alone.losses[indices])
            else:
                assert r >= n
        assert set(seen) == set(range(n))
        overlap = sum(min(16, len(range((r + 1) % world, n, world))) for r in range(min(world, n)))
        assert len(seen) == n + (overlap if world > 1 else 0)
    strategy, evidence = FacilityLocation(), sweep(model(), data(), LastLayerGradient())
    chosen = strategy.select(evidence, 9, generator=generator()).indices
    assert all(same(rank["sweeping"][0][0], chosen) for rank in found[world])


@pytest.mark.parametrize("world", WORLDS)
def test_gradients_of_layers_and_influences_are_those_of_one_process(
    found: Found, world: int
) -> None:
    """A step that all ranks average is the step of all their rows, and so is the influence."""
    net = model().eval()
    alone = sweep(net, data(), LayerGradient(["norm", "head"], project=16)).proxies
    assert alone is not None
    whole = influences(net, *(part[:12] for part in data().tensors))
    assert whole[2].abs().min() > 0
    for r, rank in enumerate(found[world]):
        mine = rank["gradients"]
        torch.testing.assert_close(mine["proxies"], alone.gradient[mine["indices"]])
        torch.testing.assert_close(mine["influences"], whole[:, r::world])


@pytest.mark.parametrize("world", WORLDS[1:])
@pytest.mark.parametrize("name", FAILURES)
def test_what_fails_on_one_rank_is_raised_on_all(found: Found, world: int, name: str) -> None:
    _, kind, words = FAILURES[name]
    errors = [rank["failures"].get(name) for rank in found[world]]
    assert None not in errors
    if name != "replicas":
        assert len(set(errors)) == 1
    with pytest.raises(kind, match=words):
        raise errors[0][0](errors[0][1])


@pytest.mark.parametrize(
    "name", ["strength_schedule", "probability", "weak_probability", "fraction"]
)
def test_what_differs_between_long_schedules_is_said_in_short(found: Found, name: str) -> None:
    _, text = found[2][0]["failures"][name]
    assert len(text) < 600
    got = text.split(", got ", 1)[1]
    first, second = got.split(" on rank 0, ")
    assert first != second.split(" on rank 1")[0]


def test_groups_that_are_none() -> None:
    with pytest.raises(TypeError, match=r"group must be a process group.*got 'gloo'.*WORLD"):
        CoresetSampler(range(9), Uniform(), count=2, group="gloo")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="group must be a process group that this rank is in"):
        sweep(model(), data(), None, group=-100)  # type: ignore[arg-type]
