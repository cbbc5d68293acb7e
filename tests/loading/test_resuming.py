"""A sampler's states are checked before they are believed, and go on exactly."""

import copy
import pickle
from typing import Any

import pytest

from augloader import CoresetSampler, DistributedCoresetSampler, Every, Evidence, Uniform
from augloader.loading.resuming import Resumable

N = 20
pytestmark = pytest.mark.filterwarnings("ignore:All draws of epoch:UserWarning")  # looked at


def planned(**options: Any) -> CoresetSampler:
    sampler = CoresetSampler(
        range(N), Uniform(), **{"fraction": 0.5, "refresh": Every(2), **options}
    )
    sampler.begin(2, Evidence(N))
    return sampler


def test_samplers_are_resumable() -> None:
    assert issubclass(DistributedCoresetSampler, Resumable)


@pytest.mark.parametrize("cut", [0, 1, 17, 30])
@pytest.mark.parametrize("options", [{}, {"epochs": 6, "constant_length": True}])
def test_a_state_goes_on_with_the_draws_left(cut: int, options: dict[str, Any]) -> None:
    whole, other = list(planned(**options)), planned(**options)
    sampler = planned(**options)
    for which in range(2):  # in one step, or in two
        other.load_state_dict(sampler.state_dict(cut if which == 0 else 0))
        assert list(other) == whole[cut:]
        sampler = copy.deepcopy(other)
    sampler.begin(3)
    expected = planned(**options)
    expected.begin(3)
    assert list(sampler) == list(expected)


def test_more_than_is_left_is_used_up() -> None:
    sampler, other = planned(), planned()
    other.load_state_dict(sampler.state_dict(10**6))
    assert list(other) == []


@pytest.mark.parametrize("draws", [-1, 31, 1.5, True])
def test_what_cannot_be_skipped(draws: Any) -> None:
    sampler = planned()
    with pytest.raises((TypeError, ValueError), match="draws must be"):
        sampler.skip(draws)
    assert len(sampler) == 30


def test_states_of_another_length_are_refused_and_old_ones_load() -> None:
    constant = planned(epochs=6, constant_length=True)
    with pytest.raises(ValueError, match="constant_length"):
        constant.load_state_dict(planned(epochs=6).state_dict())
    before = planned().state_dict()
    assert "constant_length" not in before["arguments"]  # as states had none
    planned().load_state_dict(before)


def test_a_pickled_sampler_goes_on_alike() -> None:
    sampler = planned()
    sampler.skip(7)
    other = pickle.loads(pickle.dumps(sampler))
    assert list(other) == list(sampler)
