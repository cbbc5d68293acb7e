"""Each draw is trained by one rank."""

import pytest

from augloader.distributed.draws import require_once
from tests.distributed.ranks import WORLDS, Found


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
    assert require_once.__doc__
