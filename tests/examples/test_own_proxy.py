"""The example of a user's own proxy and transform: what they are, and that it runs."""

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from augloader import CoresetSampler, Sample, Selection
from tests.scripts import EXAMPLES, load, run

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLES))  # as for a script: it imports its neighbours
    return load("own_proxy")


def test_it_runs(
    example: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    figures = tmp_path / "out.json"
    options = ("--sounds", "48", "--epochs", "2", "--seeds", "2", "--json", str(figures))
    run(example, monkeypatch, *options)
    printed = capsys.readouterr().out
    recorded = json.loads(figures.read_text())["runs"]
    assert set(recorded) == set(example.METHODS)
    for name, of in recorded.items():
        assert name in printed
        assert len(of) == 2
        assert all(0 < one[key] < 40 for one in of for key in ("clean", "disturbed"))


def test_sounds_have_the_pitch_that_they_say(example: ModuleType) -> None:
    waves, pitch, group = example.sounds(200, seed=0).tensors
    assert (waves.shape, waves.dtype, pitch.dtype) == ((200, 256), torch.float32, torch.float32)
    spectrum = torch.fft.rfft(waves).abs()
    expected = 8 * 2**pitch  # periods; the louder tone has the largest peak
    near = (spectrum[:, 1:].argmax(1) + 1 - expected).abs() <= 1
    assert near.float().mean() > 0.9  # in some, overtones of both tones meet
    assert group.bincount().tolist() == [50] * 4
    low, high = ([f(pitch[group == g]) for g in range(4)] for f in (Tensor.amin, Tensor.amax))
    assert all(high[g] < low[g + 1] for g in range(3))


def test_the_transform_is_of_a_draws_keys_and_strength(example: ModuleType) -> None:
    wave = torch.randn(256, generator=torch.Generator().manual_seed(0))
    before = wave.clone()
    for i in range(50):
        keys = torch.tensor([1, i, 0])
        assert torch.equal(example.shift_and_noise(wave, 0.0, keys), wave)
        one, other = (example.shift_and_noise(wave, 0.5, keys) for _ in range(2))
        assert one.dtype == torch.float32
        assert torch.equal(one, other)
        shifts = torch.stack([(one - wave.roll(k)).square().mean() for k in range(-128, 129)])
        assert abs(int(shifts.argmin()) - 128) <= 64
        assert shifts.min() <= 0.1  # noise of at most 1/4
    assert not torch.equal(one, example.shift_and_noise(wave, 0.5, torch.tensor([1, 0, 1])))
    assert torch.equal(wave, before)


def test_the_proxy_is_the_last_layers_gradient(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And label-free nothing but the embedding is reported."""
    found: list[dict[str, Tensor]] = []
    report = CoresetSampler.report

    def noted(self: CoresetSampler, batch: Sample, **given: Tensor) -> None:
        found.append({name: values.detach() for name, values in given.items()})
        report(self, batch, **given)

    monkeypatch.setattr(CoresetSampler, "report", noted)
    recorded = example.sounds(32, seed=0)
    example.train(recorded, "coreset 30 %", epochs=1, seed=0)
    (given,) = found
    assert set(given) == {"loss", "proxy", "target"}
    torch.manual_seed(0)
    model = example.Network()
    order = list(
        CoresetSampler(
            range(32), example.Uniform(), fraction=0.3, refresh=example.Every(5, 1), seed=0
        )
    )
    features, guess = model(recorded.tensors[0][[draw.index for draw in order]])
    loss = (guess - recorded.tensors[1][[draw.index for draw in order]]).square()
    torch.testing.assert_close(given["loss"], loss.detach())
    for i in range(0, 32, 5):
        (gradient,) = torch.autograd.grad(loss[i], model.head.weight, retain_graph=True)
        torch.testing.assert_close(given["proxy"][i], gradient[0])
    found.clear()
    example.train(recorded, "label-free 30 %", epochs=1, seed=0)
    assert [set(given) for given in found] == [{"proxy"}]
    torch.testing.assert_close(found[0]["proxy"], features.detach())


@pytest.mark.parametrize("method", ["coreset 30 %", "label-free 30 %"])
def test_groups_share_the_budget(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    selected: list[Selection] = []
    refresh = CoresetSampler.refresh

    def noted(self: CoresetSampler) -> Selection:
        selected.append(refresh(self))
        return selected[-1]

    monkeypatch.setattr(CoresetSampler, "refresh", noted)
    recorded = example.sounds(80, seed=0)
    example.train(recorded, method, epochs=7, seed=0)
    assert [len(selection) for selection in selected] == [24, 24]  # at epochs 1 and 6
    if method == "coreset 30 %":
        groups = recorded.tensors[2]
        assert all(groups[one.indices].bincount().tolist() == [6] * 4 for one in selected)
