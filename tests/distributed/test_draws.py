"""Each draw is trained by one rank."""

from collections import Counter
from itertools import chain

import pytest

from tests.distributed.ranks import WORLDS, Found, N


@pytest.mark.parametrize("world", WORLDS)
def test_draws_of_several_ranks_are_an_error_on_all(found: Found, world: int) -> None:
    for rank in found[world]:
        apart, shared = rank["draws"]
        assert apart is None
        if world == 1:
            assert shared is None
            continue
        assert (
            f"got {world - 1} of the {4 * world} reported draws of epoch 5 from several" in shared
        )
        assert "DistributedCoresetSampler" in shared


@pytest.mark.parametrize("world", WORLDS)
def test_a_wrapped_loader_shares_its_draws(found: Found, world: int) -> None:
    for parts in zip(*(rank["wrapping"] for rank in found[world]), strict=True):
        epochs, mine, chosen, planned, lengths = zip(*parts, strict=True)
        together = Counter(chain(*mine))
        assert set(together.values()) == {1}
        assert len(together) == N + (N // 4 if epochs[0] else 0)
        assert planned == lengths
        for indices in chosen:
            assert (indices is None) == (epochs[0] == 0)
            if indices is not None:  # the largest losses, of reports of all ranks
                assert sorted(indices.tolist()) == list(range(N - N // 4, N))
