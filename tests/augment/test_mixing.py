"""Mixup and CutMix, and what Manifold Mixup shares with them: laws, oracles, feedback, errors."""

from collections.abc import Callable
from typing import Any

import kornia.augmentation as K
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2

from augloader import (
    CoresetSampler,
    Cosine,
    CutMix,
    Evidence,
    FacilityLocation,
    Linear,
    ManifoldMixup,
    Mixup,
    Residual,
    Sample,
    StableInfluence,
    SwitchOff,
    Uniform,
    WeightedAugmentedDataset,
    sweep,
)
from augloader.augment import Mixing
from tests.augment.mixed import (
    C,
    assert_as_on_the_cpu,
    assert_worded,
    batches,
    blended,
    copied,
    gammas,
    net,
    portions,
    rows,
    same,
    seeds,
    soft_rows,
    targets,
    without_waiting,
)
from tests.pretend_cuda import pretend_cuda
from tests.reference import random_state

pytestmark = pytest.mark.usefixtures("one_thread")

kinds = st.sampled_from([Mixup, CutMix])


# Laws -------------------------------------------------------------------------------------------


@given(batches(), gammas, seeds)
def test_weights_keep_their_sum_and_each_sample_its_share(
    batch: Sample, gamma: float, seed: int
) -> None:
    mixup = Mixup(C, gamma, seed=seed)
    mixing, out = mixup.sample(batch), mixup(batch)
    w, lam = batch.weight.double(), mixing.lam.double()
    assert float(out.weight.double().sum()) == pytest.approx(float(w.sum()), rel=1e-6, abs=1e-9)
    held = lam * w  # in its own row, and what the row takes that it is the partner of
    held.index_add_(0, mixing.partner, (1 - lam) * w[mixing.partner])
    torch.testing.assert_close(held, w)


@given(batches(), gammas, seeds)
def test_partners_are_rings_of_one_lambda_among_strong_rows(
    batch: Sample, gamma: float, seed: int
) -> None:
    mixing = Mixup(C, gamma, seed=seed).sample(batch)
    everyone = torch.arange(len(batch.index))
    assert mixing.partner.sort().values.equal(everyone)
    assert mixing.lam[mixing.partner].equal(mixing.lam)
    assert (mixing.lam >= (1 - batch.strength.double()).float()).all()
    alone = mixing.partner == everyone
    plain = batch.strength == 0
    assert alone[plain].all()
    assert not mixing.mixed[alone].any()
    strong = int((~plain).sum())
    assert int(alone.sum()) == int(plain.sum()) + (strong == 1)
    twice = mixing.partner[mixing.partner] != everyone
    assert int(twice.sum()) == (3 if strong % 2 and strong > 1 else 0)


@given(batches(), gammas, seeds)
def test_inputs_targets_and_weights_are_blended_alike(
    batch: Sample, gamma: float, seed: int
) -> None:
    mixup, before = Mixup(C, gamma, seed=seed), copied(batch)
    mixing, out = mixup.sample(batch), mixup(batch)
    assert same(batch, before)
    hot = F.one_hot(batch.target, C).float()
    for mixed, given_ in ((out.input, batch.input), (out.target, hot), (out.weight, batch.weight)):
        blend = blended(mixing, given_)
        if mixed is out.target:
            blend = targets(mixing, batch.weight, hot)
        assert mixed.dtype == torch.float32
        torch.testing.assert_close(mixed.double(), blend, rtol=1e-6, atol=1e-6)
        assert mixed[~mixing.mixed].equal(given_[~mixing.mixed])
    assert (out.target >= 0).all()
    assert (out.target <= 1).all()
    torch.testing.assert_close(out.target.sum(1), torch.ones(len(hot)))
    assert out.mixed.equal(mixing.mixed)
    for name in ("index", "strength", "copy", "epoch", "extra"):
        assert getattr(out, name) is getattr(batch, name)


@given(batches(), kinds, gammas, seeds)
def test_every_sample_and_class_keeps_its_mass(
    batch: Sample, kind: type[Mixup | CutMix], gamma: float, seed: int
) -> None:
    own = torch.eye(len(batch.index))  # a class a sample
    for target in (own, F.one_hot(batch.target, C).float()):
        out = kind(None, gamma, seed=seed)(batch._replace(target=target))
        found, given_ = (
            b.weight.double() @ b.target.double() for b in (out, batch._replace(target=target))
        )
        torch.testing.assert_close(found, given_, rtol=1e-6, atol=3e-5)


@given(batches(), kinds, gammas, seeds)
def test_weight_times_cross_entropy_is_that_of_both_samples(
    batch: Sample, kind: type[Mixup | CutMix], gamma: float, seed: int
) -> None:
    mixer = kind(C, gamma, seed=seed)
    mixing, out = mixer.sample(batch), mixer(batch)
    random = torch.Generator().manual_seed(seed)
    logits = 5 * torch.randn(len(batch.index), C, generator=random, dtype=torch.float64)
    lam, j, y, w = mixing.lam.double(), mixing.partner, batch.target, batch.weight.double()
    own, other = (F.cross_entropy(logits, label, reduction="none") for label in (y, y[j]))
    found = out.weight.double() * F.cross_entropy(logits, out.target.double(), reduction="none")
    expected = lam * w * own + (1 - lam) * w[j] * other
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("kind", [Mixup, CutMix])
def test_equal_weights_blend_targets_as_inputs(kind: type[Mixup | CutMix]) -> None:
    batch, mixer = rows(9)._replace(weight=torch.full((9,), 2.5)), kind(C)
    out, mixing = mixer(batch), mixer.sample(batch)
    assert mixing.mixed.any()
    hot = F.one_hot(batch.target, C)
    torch.testing.assert_close(out.target.double(), blended(mixing, hot), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", [Mixup, CutMix])
def test_padding_contributes_nothing(kind: type[Mixup | CutMix]) -> None:
    """Rows of weight 0 are partners, but of their labels nothing reaches a loss."""
    batch, padding = rows(64, (1, 9, 9)), torch.arange(64) % 2 == 0
    weight = batch.weight.masked_fill(padding, 0)
    batch = batch._replace(weight=weight, target=batch.target.masked_fill(padding, C))
    out, mixing = kind(C + 1)(batch), kind(C + 1).sample(batch)
    counts = out.weight > 0
    assert (mixing.mixed & (padding != padding[mixing.partner])).any()
    assert (out.target[counts, C] <= 1e-6).all()
    both = padding & padding[mixing.partner] & mixing.mixed  # weight 0 of both: plain lam
    assert both.any()
    assert not out.weight[both].any()
    torch.testing.assert_close(out.target.sum(1), torch.ones(64))
    torch.testing.assert_close(out.weight.sum(), weight.sum())


def test_without_any_weight_targets_are_blended_by_lambda() -> None:
    batch, mixup = rows()._replace(weight=torch.zeros(8)), Mixup(C)
    mixing, hot = mixup.sample(batch), F.one_hot(batch.target, C)
    torch.testing.assert_close(
        mixup(batch).target.double(), blended(mixing, hot), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("kind", [Mixup, CutMix])
def test_mixing_twice_keeps_probabilities(kind: type[Mixup | CutMix]) -> None:
    batch = rows(501, (1, 9, 9))
    batch = batch._replace(weight=batch.weight * (batch.weight > 1))
    out = kind(C, seed=1)(kind(C)(batch))  # which refuses targets outside [0, 1]
    torch.testing.assert_close(out.target.sum(1), torch.ones(501))


@given(st.integers(2, 12), st.integers(1, 20), st.integers(1, 20), gammas, portions, seeds)
def test_cutmix_lambda_is_the_area_that_was_not_pasted(
    b: int, height: int, width: int, gamma: float, strength: float, seed: int
) -> None:
    batch = rows(b, (2, height, width), strength=strength, seed=seed)
    images = torch.arange(b, dtype=torch.uint8).view(b, 1, 1, 1).expand_as(batch.input)
    batch = batch._replace(input=images)
    cutmix = CutMix(C, gamma, seed=seed)
    mixing, out = cutmix.sample(batch), cutmix(batch)
    changed = out.input != images
    assert out.input.dtype == torch.uint8
    area = changed[:, 0].sum((1, 2)).double() / (height * width)
    assert mixing.lam.equal((1 - area).float())
    assert mixing.box is not None
    for i, (top, left, bottom, right) in enumerate(mixing.box.tolist()):
        assert 0 <= top <= bottom <= height
        assert 0 <= left <= right <= width
        expected = images[i].clone()
        expected[:, top:bottom, left:right] = images[mixing.partner[i], :, top:bottom, left:right]
        assert out.input[i].equal(expected)
    assert mixing.box[mixing.partner].equal(mixing.box)
    drawn = Mixup(C, gamma, seed=seed).sample(batch)  # the same pairs, folded
    assert drawn.partner.equal(mixing.partner)
    assert (1 - mixing.lam <= strength - (1 - drawn.lam) + 1e-6).all()  # s max(l0, 1 - l0)
    total = batch.weight.sum()
    torch.testing.assert_close(out.weight.sum(), total)
    expected = targets(mixing, batch.weight, F.one_hot(batch.target, C))
    torch.testing.assert_close(out.target.double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", [Mixup, CutMix])
@pytest.mark.parametrize("nothing", ["strength", "alpha", "probability", "schedule", "one strong"])
def test_nothing_is_mixed(kind: type[Mixup | CutMix], nothing: str) -> None:
    zero: dict[str, Any] = {nothing: 0.0} if nothing in ("alpha", "probability", "schedule") else {}
    strength: float | list[float] = 0.0 if nothing == "strength" else 1.0
    batch = rows(5, strength=[0, 0, 1, 0, 0] if nothing == "one strong" else strength)
    out = kind(C, **zero)(batch)
    hot = F.one_hot(batch.target, C).float()
    assert same(out, batch._replace(target=hot, mixed=torch.zeros(5, dtype=torch.bool)))
    assert out.input is batch.input


def test_lambda_of_one_is_the_identity() -> None:
    batch = rows(5)
    for kind in (Mixup(C), CutMix(C)):
        mixing = Mixing(torch.arange(5).roll(1), torch.ones(5), torch.zeros(5, 4).long())
        out = kind.apply(batch, mixing)
        assert out.input is batch.input
        assert out.weight is batch.weight
        assert out.target.equal(F.one_hot(batch.target, C).float())
        assert not out.mixed.any()


def test_lambda_of_zero_is_the_partner() -> None:
    batch, partner = rows(5), torch.arange(5).roll(1)
    out = Mixup(C).apply(batch, Mixing(partner, torch.zeros(5)))
    assert out.input.equal(batch.input[partner])
    assert out.weight.equal(batch.weight[partner])
    assert out.mixed.all()


def test_marks_of_earlier_mixing_are_kept() -> None:
    before = torch.tensor([True, False, False, False])
    batch = rows(4, strength=[0, 0, 1, 1])._replace(mixed=before)
    assert Mixup(C)(batch).mixed.tolist() == [True, False, True, True]


# Distributions ----------------------------------------------------------------------------------


def drawn_shares(mixing: Mixing) -> Tensor:
    """1 - lam, one a pair."""
    first = torch.arange(len(mixing.lam)) < mixing.partner
    return 1 - mixing.lam[first].double()


def folded(gamma: float) -> Callable[[Any], Any]:
    """The distribution function of min(l, 1 - l), l of Beta(gamma, gamma)."""
    beta = stats.beta(gamma, gamma)
    return lambda x: np.where(x < 0.5, 2 * beta.cdf(x), 1.0)


def sampled(kind: str, batch: Sample, gamma: float) -> Mixing:
    mixer = Mixup(C, gamma) if kind == "mixup" else ManifoldMixup(net(), ["1"], C, gamma)
    return mixer.sample(batch)


@pytest.mark.parametrize("kind", ["mixup", "manifold"])
@pytest.mark.parametrize("gamma", [0.2, 1.0, 2.0])
@pytest.mark.parametrize("strength", [1.0, 0.25])
def test_lambdas_are_folded_beta_distributed(kind: str, gamma: float, strength: float) -> None:
    shares = drawn_shares(sampled(kind, rows(1000, (1,), strength=strength), gamma))
    assert len(shares) == 500
    assert (shares <= strength / 2).all()
    assert stats.kstest(shares.numpy() / strength, folded(gamma)).pvalue > 0.01


@pytest.mark.parametrize("kind", ["mixup", "manifold"])
@pytest.mark.parametrize("gamma", [1.0, 0.2, 0.01])
def test_less_strength_mixes_less(kind: str, gamma: float) -> None:
    amounts = []
    for strength in (1.0, 0.9, 0.75, 0.5, 0.25):
        lam = sampled(kind, rows(4000, (1,), strength=strength), gamma).lam.double()
        amounts.append(float(torch.minimum(lam, 1 - lam).mean()))
    assert amounts == sorted(amounts, reverse=True)
    assert len(set(amounts)) == 5
    assert amounts[-1] == pytest.approx(amounts[0] / 4, rel=1e-4)


@pytest.mark.parametrize("gamma", [0.2, 1.0, 2.0])
@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_cutmix_is_not_folded(gamma: float, strength: float) -> None:
    """Areas of boxes of s l, l of Beta(gamma, gamma), that were cut off at the image's border."""
    side, random = 32, np.random.default_rng(0)
    half = np.floor(0.5 * np.sqrt(strength * random.beta(gamma, gamma, 4000)) * side)
    centres = random.integers(side, size=(2, 4000))
    low, high = (np.clip(centres + end, 0, side) for end in (-half, half))
    area = (high - low).prod(0) / side**2
    mixing = CutMix(C, gamma).sample(rows(4000, (1, side, side), strength=strength))
    assert stats.ks_2samp(drawn_shares(mixing).numpy().round(6), area.round(6)).pvalue > 0.01
    assert bool((mixing.lam < 0.5).any()) == (strength > 0.5)


def test_the_weaker_row_bounds_its_pair() -> None:
    b = 1000
    strength = torch.rand(b, generator=torch.Generator().manual_seed(1))
    batch = rows(b, (1,))._replace(strength=strength)
    mixing = Mixup(C).sample(batch)
    weaker = torch.minimum(strength, strength[mixing.partner])
    scaled = ((1 - mixing.lam) / weaker)[torch.arange(b) < mixing.partner]
    assert stats.kstest(scaled.numpy(), stats.uniform(0, 0.5).cdf).pvalue > 0.01


@pytest.mark.parametrize("b", [4, 5])
def test_partners_are_uniform(b: int) -> None:
    mixup, batch, random = Mixup(C), rows(b, (1,)), torch.Generator().manual_seed(0)
    partners = torch.stack([mixup.sample(batch, random).partner for _ in range(1200)])
    for row in range(b):
        counts = partners[:, row].bincount(minlength=b)
        assert counts[row] == 0
        assert stats.chisquare(counts[counts > 0].numpy()).pvalue > 0.001
        assert int((counts > 0).sum()) == b - 1


def test_partners_are_uniform_over_keys() -> None:
    mixup, batch = Mixup(C), rows(4, (1,))
    first = [
        int(mixup.sample(batch._replace(index=torch.arange(4) + i)).partner[0]) for i in range(1200)
    ]
    assert stats.chisquare(np.bincount(first, minlength=4)[1:]).pvalue > 0.001


@pytest.mark.parametrize("kind", [Mixup, CutMix])
def test_probability_is_that_of_a_pair(kind: type[Mixup | CutMix]) -> None:
    mixing = kind(C, probability=0.3).sample(rows(2000, (1, 50, 50)))
    assert mixing.mixed[mixing.partner].equal(mixing.mixed)
    pairs = int(mixing.mixed.sum()) // 2
    least = 0.95 if kind is CutMix else 1  # a few boxes come to nothing
    assert stats.binomtest(pairs, 1000, 0.3 * least).pvalue > 0.01


def test_centres_of_boxes_are_uniform() -> None:
    mixing = CutMix(C).sample(rows(4000, (1, 20, 28), strength=0.02))
    assert mixing.box is not None
    first = (torch.arange(4000) < mixing.partner) & mixing.mixed
    top, left, bottom, right = mixing.box[first].unbind(1)
    for low, high, side in ((top, bottom, 20), (left, right, 28)):
        assert ((high - low) <= 2).all()  # half a side is 1: the centre is the last pixel
        assert stats.chisquare((high - 1).bincount(minlength=side).numpy()).pvalue > 0.001


@pytest.mark.parametrize("side", [7, 32])
def test_boxes_have_the_drawn_sides_until_they_are_cut_off(side: int) -> None:
    batch = rows(400, (1, side, 2 * side))
    mixing, folded = CutMix(C).sample(batch), 1 - Mixup(C).sample(batch).lam.double()
    assert mixing.box is not None
    sides = torch.tensor([side, 2 * side])
    low, high = mixing.box[:, :2], mixing.box[:, 2:]
    inside = ((low > 0) & (high < sides)).all(1)
    of = []
    for share in (folded, 1 - folded):  # one of them was drawn
        drawn = share.sqrt()[:, None] * sides
        of.append(((high - low <= drawn + 1e-3) & (high - low > drawn - 2 - 1e-3)).all(1))
        assert (inside & of[-1]).any()
    assert (of[0] | of[1])[inside].all()
    assert (high - low <= drawn.maximum(folded.sqrt()[:, None] * sides) + 1e-3).all()


# Oracles ----------------------------------------------------------------------------------------


def test_mixup_is_kornias() -> None:
    batch, mixup = rows(9, strength=[0, 1, 1, 0.5, 0.2, 0, 1, 1, 1]), Mixup(C)
    mixing = mixup.sample(batch)
    kornia = K.RandomMixUpV2(data_keys=["input"])
    params = {"mixup_pairs": mixing.partner, "mixup_lambdas": 1 - mixing.lam}
    expected = kornia.apply_transform(batch.input, params)
    torch.testing.assert_close(mixup(batch).input, expected, rtol=0, atol=1e-6)


def test_mixup_is_torchvisions() -> None:
    batch, lam = rows(7)._replace(weight=torch.ones(7)), 0.3
    mixing = Mixing(torch.arange(7).roll(1), torch.full((7,), lam))
    out = Mixup(C).apply(batch, mixing)
    oracle = v2.MixUp(num_classes=C)
    params = {"labels": batch.target, "batch_size": 7, "lam": lam}
    torch.testing.assert_close(out.input, oracle.transform(batch.input, params))
    torch.testing.assert_close(out.target, oracle.transform(batch.target, params))


def test_cutmix_is_torchvisions() -> None:
    batch, (top, left, bottom, right) = rows(7, (3, 10, 8)), (2, 1, 9, 5)
    batch = batch._replace(weight=torch.ones(7))
    lam = 1 - 28 / 80
    box = torch.tensor([top, left, bottom, right]).expand(7, 4)
    mixing = Mixing(torch.arange(7).roll(1), torch.full((7,), lam), box)
    out = CutMix(C).apply(batch, mixing)
    oracle = v2.CutMix(num_classes=C)
    params = {"labels": batch.target, "batch_size": 7, "lam_adjusted": lam}
    params["box"] = (left, top, right, bottom)
    assert out.input.equal(oracle.transform(batch.input, params))
    torch.testing.assert_close(out.target, oracle.transform(batch.target, params))


def test_cutmix_is_kornias() -> None:
    batch, cutmix = rows(9, (3, 12, 17)), CutMix(C)
    mixing = cutmix.sample(batch)
    assert mixing.box is not None
    assert mixing.mixed.any()
    top, left, bottom, right = mixing.box.float().unbind(1)
    right, bottom = right - 1, bottom - 1  # Kornia's corners are within
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    crop = torch.stack([torch.stack(corner, 1) for corner in corners], 1)
    some = mixing.mixed  # it has no empty boxes
    kornia = K.RandomCutMixV2(data_keys=["input"], use_correct_lambda=True)
    params = {"mix_pairs": mixing.partner[None], "crop_src": crop[None]}
    expected = kornia.apply_transform(batch.input, params)
    assert cutmix(batch).input[some].equal(expected[some])


# Dtypes, formats and targets --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes_are_kept(dtype: torch.dtype) -> None:
    batch, mixup = rows(), Mixup(C)
    batch = batch._replace(input=batch.input.to(dtype), weight=batch.weight.double())
    out, mixing = mixup(batch), mixup.sample(batch)
    assert (out.input.dtype, out.weight.dtype) == (dtype, torch.float64)
    close = 1e-12 if dtype == torch.float64 else 1e-2
    torch.testing.assert_close(
        out.input.double(), blended(mixing, batch.input), rtol=close, atol=close
    )


@pytest.mark.parametrize("kind", [Mixup, CutMix])
@pytest.mark.parametrize("strength", [1.0, [1.0, 0, 1, 0, 1, 0.5]])
def test_memory_format_is_kept(kind: type[Mixup | CutMix], strength: float | list[float]) -> None:
    batch = rows(6, strength=strength)
    last = batch._replace(input=batch.input.contiguous(memory_format=torch.channels_last))
    out = kind(C)(last)
    assert out.mixed.any()
    assert out.input.is_contiguous(memory_format=torch.channels_last)
    assert out.input.equal(kind(C)(batch).input)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_class_targets_become_probabilities(dtype: torch.dtype) -> None:
    batch = rows()
    out = Mixup(C)(batch._replace(target=batch.target.to(dtype)))
    assert same(out, Mixup(C)(batch))
    assert out.target.dtype == torch.float32


@pytest.mark.parametrize("classes", [None, C])
@pytest.mark.parametrize("kind", ["smoothed", "multi-label", "double"])
def test_soft_targets_are_blended(classes: int | None, kind: str) -> None:
    random = torch.rand(8, C, generator=torch.Generator().manual_seed(0))
    target = {
        "smoothed": random.softmax(1),
        "multi-label": random.round(),
        "double": random.double().softmax(1),
    }[kind]
    batch, mixup = rows()._replace(target=target), Mixup(classes)
    out = mixup(batch)
    assert out.target.dtype == target.dtype
    expected = targets(mixup.sample(batch), batch.weight, target)
    torch.testing.assert_close(out.target.double(), expected, rtol=1e-6, atol=1e-6)
    if kind != "multi-label":
        torch.testing.assert_close(out.target.sum(1), torch.ones(8, dtype=target.dtype))


def test_cutmix_takes_planes_and_volumes() -> None:
    for shape in ((9, 7), (2, 3, 9, 7)):
        batch, cutmix = rows(6, shape), CutMix(C)
        out, mixing = cutmix(batch), cutmix.sample(batch)
        same_pixels = (out.input == batch.input).flatten(1).double().mean(1)
        torch.testing.assert_close(same_pixels.float(), mixing.lam)


def test_a_number_for_all_strengths() -> None:
    batch, mixup = rows(strength=0.5), Mixup(C)
    assert mixup(batch._replace(strength=0.5)).input.equal(mixup(batch).input)


# Determinism ------------------------------------------------------------------------------------

MIXERS: dict[str, Callable[..., Mixing]] = {
    "mixup": lambda batch, generator=None, **o: Mixup(C, **o).sample(batch, generator),
    "cutmix": lambda batch, generator=None, **o: CutMix(C, **o).sample(batch, generator),
    "manifold": lambda batch, generator=None, **o: ManifoldMixup(net(), ["1"], C, **o).sample(
        batch, generator
    ),
}


@pytest.mark.parametrize("name", MIXERS)
def test_seed_and_keys_decide(name: str) -> None:
    sample = MIXERS[name]
    batch = rows()
    lam = sample(batch).lam
    assert lam.equal(sample(batch).lam)
    assert lam.equal(sample(rows()._replace(input=batch.input + 1, weight=batch.weight + 1)).lam)
    others = [
        sample(batch, seed=1),
        sample(batch._replace(epoch=batch.epoch + 1)),
        sample(batch._replace(index=batch.index + 1)),
    ]
    assert len({tuple(mixing.lam.tolist()) for mixing in others} | {tuple(lam.tolist())}) == 4


@pytest.mark.parametrize("name", MIXERS)
def test_of_the_first_row_epoch_index_and_whether_it_is_strong_count(name: str) -> None:
    sample, batch = MIXERS[name], rows(9, strength=[1.0] * 8 + [0.0])
    lams = sample(batch).lam
    assert lams.equal(sample(batch._replace(copy=batch.copy + 1)).lam)
    others = batch.index.clone()
    others[1:] += 1
    assert lams.equal(sample(batch._replace(index=others)).lam)
    weak = torch.tensor([2**-10] + [1.0] * 7 + [0.0])
    partner = sample(batch._replace(strength=weak)).partner
    assert partner.equal(sample(batch).partner)
    plain = sample(batch._replace(strength=batch.strength.flip(0))).lam  # as many strong rows
    assert not lams.sort().values.equal(plain.sort().values)


@pytest.mark.parametrize("name", MIXERS)
def test_an_explicit_generator_decides(name: str) -> None:
    sample, batch = MIXERS[name], rows()
    one, two = (torch.Generator().manual_seed(5) for _ in range(2))
    first = sample(batch, one).lam
    assert first.equal(sample(batch._replace(epoch=batch.epoch + 1), two, seed=9).lam)
    assert not first.equal(sample(batch, one).lam)


def test_global_random_states_are_left_alone() -> None:
    batch, model, random = rows(), net(), torch.Generator().manual_seed(0)
    manifold = ManifoldMixup(model, ["", "1"], C)
    before = random_state()
    for generator in (None, random):
        Mixup(C)(batch, generator)
        CutMix(C)(batch, generator)
        with manifold(batch, generator):
            model(batch.input)
    assert random_state() == before


def loader(workers: int = 0, skip: int = 0) -> DataLoader[Any]:
    """Epoch 1 of 20 samples and 10 strong copies."""
    random = torch.Generator().manual_seed(0)
    images = torch.rand(20, 1, 6, 6, generator=random)
    data = WeightedAugmentedDataset(TensorDataset(images, torch.arange(20) % C))
    sampler = CoresetSampler(data, Uniform(), count=10, seed=1)
    sampler.refresh()
    sampler.set_epoch(1)
    sampler.skip(skip)
    return DataLoader(data, batch_size=6, sampler=sampler, num_workers=workers)


@pytest.mark.parametrize("kind", [Mixup, CutMix])
def test_a_resumed_epoch_goes_on_alike_with_any_number_of_workers(
    kind: type[Mixup | CutMix],
) -> None:
    whole = [kind(C)(batch) for batch in loader()]
    assert sum(int(batch.mixed.sum()) for batch in whole) > 4
    rest = [kind(C)(batch) for batch in loader(skip=12)]
    for mine, other in zip(rest, whole[2:], strict=True):
        assert same(mine, other)
    for mine, other in zip((kind(C)(batch) for batch in loader(workers=2)), whole, strict=True):
        assert same(mine, other)


# Schedules --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Mixup, CutMix])
def test_schedules_switch_off(kind: type[Mixup | CutMix]) -> None:
    by_gamma = kind(C, schedule=SwitchOff(2), epochs=5)
    by_chance = kind(C, probability=SwitchOff(2), epochs=5)
    for epoch in range(5):
        batch = rows(epoch=epoch)
        for mixer in (by_gamma, by_chance):
            assert bool(mixer(batch).mixed.any()) == (epoch < 3)
        assert same(by_gamma.sample(batch).lam, by_chance.sample(batch).lam)
    with pytest.raises(ValueError, match=r"epoch must be in \[0, 5\).*got 5") as raised:
        by_gamma(rows(epoch=5))
    assert_worded(raised)
    with pytest.raises(ValueError, match="planned"):
        kind(C, epochs=5)(rows(epoch=5))


def test_a_schedule_is_a_factor_of_gamma() -> None:
    fading, batch = Mixup(C, 2.0, schedule=Linear(), epochs=4), rows(epoch=1)
    assert fading.sample(batch).lam.equal(Mixup(C, 1.0).sample(batch).lam)
    assert not Mixup(C, schedule=Cosine(), epochs=4)(rows(epoch=3)).mixed.any()
    assert Mixup(C, 2.0, schedule=0.5).sample(batch).lam.equal(Mixup(C).sample(batch).lam)


def test_mixing_follows_the_samplers_schedule() -> None:
    data = WeightedAugmentedDataset([(torch.rand(3), i % C) for i in range(12)])
    sampler = CoresetSampler(data, Uniform(), count=8, epochs=4, strength_schedule=SwitchOff(2))
    mixup = Mixup(C)
    for epoch in range(4):
        sampler.set_epoch(epoch)
        sampler.refresh()
        mixed = [mixup(batch).mixed for batch in DataLoader(data, batch_size=20, sampler=sampler)]
        assert bool(torch.cat(mixed).any()) == (epoch < 2)


# Feedback ---------------------------------------------------------------------------------------


def test_the_table_knows_the_clean_rows_alone() -> None:
    random = torch.Generator().manual_seed(0)
    y = torch.arange(40) % C
    x = torch.randn(40, 6, generator=random) + y[:, None]
    data = WeightedAugmentedDataset(TensorDataset(x, y))
    torch.manual_seed(0)
    model = nn.Linear(6, C)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sampler = CoresetSampler(
        data, FacilityLocation(), fraction=0.5, strength=StableInfluence(), seed=0
    )
    mixup, mixed_rows = Mixup(C), 0
    for epoch in range(4):
        sampler.set_epoch(epoch)
        if sampler.refresh_due:
            sampler.refresh(sweep(model, data, Residual()) if epoch == 0 else None)
        expected = torch.full((40,), torch.nan)
        for batch in DataLoader(data, batch_size=10, sampler=sampler):
            mixed = mixup(batch)
            logits = model(mixed.input)
            losses = F.cross_entropy(logits, mixed.target, reduction="none")
            clean = batch.index[batch.strength == 0]
            with torch.no_grad():
                expected[clean] = F.cross_entropy(model(x[clean]), y[clean], reduction="none")
            optimizer.zero_grad()
            (losses * mixed.weight).mean().backward()
            optimizer.step()
            visits = sampler.table.visits.clone()
            sampler.report(mixed, loss=losses, logits=logits)
            seen = (sampler.table.visits > visits).nonzero().flatten()
            assert seen.equal(batch.index[~mixed.mixed].unique())
            mixed_rows += int(mixed.mixed.sum())
        known = sampler.table.evidence(frozenset({"losses", "proxies", "labels"}))
        assert known.losses is not None
        assert known.labels is not None
        torch.testing.assert_close(known.losses, expected)
        assert known.labels.equal(y)
    assert mixed_rows > 20


def test_a_batch_of_mixed_rows_alone_reports_nothing() -> None:
    data = [(torch.rand(3), 0)] * 10
    sampler = CoresetSampler(data, Uniform(), count=5)
    batch = rows(4, (3,))._replace(index=torch.arange(4))
    mixed = Mixup(C)(batch)
    assert mixed.mixed.all()
    sampler.report(mixed, loss=torch.rand(4), logits=torch.rand(4, C))
    assert not sampler.table.visits.any()


# On the GPU -------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["classes", "probabilities"])
@pytest.mark.parametrize("mixer", [Mixup(C), CutMix(C)], ids=lambda mixer: type(mixer).__name__)
def test_a_gpu_is_not_waited_for(mixer: Mixup | CutMix, target: str) -> None:
    images, strength = torch.rand(6, 3, 8, 8), torch.linspace(0, 1, 6)
    labels = torch.arange(6) % C if target == "classes" else torch.eye(C)[torch.arange(6) % C]
    batch = Sample(images, labels, torch.arange(6), torch.ones(6), strength)
    expected = mixer(batch)
    with pretend_cuda() as gpu:
        there = batch.to("cuda")
        gpu.clear()
        mixed = mixer(there)
        assert not gpu.waits, gpu.report()
        assert torch.equal(mixed.input.cpu(), expected.input)
        assert torch.equal(mixed.target.cpu(), expected.target)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("kind", [Mixup, CutMix])
def test_mixing_does_not_wait_for_the_gpu(kind: type[Mixup | CutMix]) -> None:
    batch, mixer = soft_rows(), kind(C)
    there = batch.to("cuda")
    mixer(there)
    with without_waiting():
        out = mixer(there)
    assert_as_on_the_cpu(out, mixer(batch))


@pytest.mark.gpu
@pytest.mark.parametrize("kind", [Mixup, CutMix])
@pytest.mark.parametrize("plain", ["copy", "epoch", "both"])
def test_an_index_on_the_gpu_beside_plain_numbers(kind: type[Mixup | CutMix], plain: str) -> None:
    whole = soft_rows()._replace(copy=torch.zeros(16, dtype=torch.int64))
    numbers = {"copy": 0} if plain == "copy" else {"epoch": 0}
    numbers |= {"copy": 0} if plain == "both" else {}
    there = whole._replace(index=whole.index.cuda(), **numbers).to("cuda")
    assert_as_on_the_cpu(kind(C)(there), kind(C)(whole))


@pytest.mark.gpu
@pytest.mark.parametrize("stays", ["target", "weight", "input"])
def test_fields_may_be_on_different_devices(stays: str) -> None:
    batch = soft_rows()
    out, here = (
        Mixup(C)(batch.to("cuda")._replace(**{stays: getattr(batch, stays)})),
        Mixup(C)(batch),
    )
    for name in ("input", "target", "weight"):
        found = getattr(out, name)
        assert found.is_cuda == (name != stays)
        torch.testing.assert_close(found.cpu(), getattr(here, name), rtol=1e-5, atol=1e-6)


# What it raises ---------------------------------------------------------------------------------


BAD: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "gamma < 0": (lambda: Mixup(C, -0.1), ValueError, r"alpha must be in \[0, inf\), got -0.1"),
    "gamma nan": (lambda: CutMix(C, float("nan")), ValueError, "alpha must be .* got nan"),
    "gamma inf": (lambda: Mixup(C, float("inf")), ValueError, "alpha must be .* got inf"),
    "gamma bool": (lambda: Mixup(C, True), TypeError, "alpha must be a number .* got True"),
    "gamma str": (lambda: Mixup(C, "1"), TypeError, "alpha must be .* got '1'"),  # type: ignore[arg-type]
    "classes 1": (lambda: Mixup(1), ValueError, "num_classes must be at least 2, got 1"),
    "classes float": (lambda: Mixup(10.0), TypeError, "num_classes must be an integer"),  # type: ignore[arg-type]
    "probability": (lambda: Mixup(C, probability=1.1), ValueError, "probability must be .* 1.1"),
    "schedule": (lambda: Mixup(C, schedule=-0.1), ValueError, "schedule must be .* -0.1"),
    "no epochs": (lambda: Mixup(C, schedule=Linear()), ValueError, "epochs must be given"),
    "epochs": (lambda: CutMix(C, epochs=0), ValueError, "epochs must be at least 1, got 0"),
    "seed": (lambda: Mixup(C, seed=-1), ValueError, r"seed must be in \[0, 2\^64\), got -1"),
    "large seed": (lambda: Mixup(C, seed=2**64)(rows()), ValueError, "seed must be"),
    "box of other images": (
        lambda: CutMix(C).apply(rows(), CutMix(C).sample(rows(8, (3, 12, 10)))),
        ValueError,
        "box must lie in images of 6 x 5",
    ),
    "target (b, 1)": (
        lambda: Mixup(C)(rows(4)._replace(target=torch.zeros(4, 1).long())),
        ValueError,
        r"target must be \(4,\) .* got \(4, 1\) torch.int64. Pass .* as target.float\(\)",
    ),
    "target (b, C + 1)": (
        lambda: Mixup(C)(rows(4)._replace(target=torch.rand(4, 5))),
        ValueError,
        r"target must be \(4, 4\) .* got \(4, 5\)",
    ),
    "target (b,) float": (
        lambda: Mixup(C)(rows(4)._replace(target=torch.rand(4))),
        ValueError,
        r"target must be .* got \(4,\) torch.float32",
    ),
    "target (b - 1, C)": (
        lambda: Mixup()(rows(4)._replace(target=torch.rand(3, C))),
        ValueError,
        r"target must be \(4, C\) .* got \(3, 4\)",
    ),
    "target (b - 1,)": (
        lambda: Mixup(C)(rows(4)._replace(target=torch.zeros(3).long())),
        ValueError,
        r"target must have shape \(4,\), got \(3,\)",
    ),
    "target C": (
        lambda: Mixup(C)(rows(4)._replace(target=torch.tensor([0, 1, C, 0]))),
        ValueError,
        r"target must be in \[0, 4\), got 1 labels outside \(first indices 2\)",
    ),
    "target < 0": (
        lambda: CutMix(C)(rows(4)._replace(target=torch.tensor([0, -1, 0, 0]))),
        ValueError,
        "target must be in .* indices 1",
    ),
    "target bool": (
        lambda: Mixup(C)(rows(4)._replace(target=torch.ones(4, dtype=torch.bool))),
        ValueError,
        r"target must be \(4,\) class indices .* got \(4,\) torch.bool. .* with unsqueeze\(1\)",
    ),
    "target (b, C + 1) bool": (
        lambda: CutMix(C)(rows(4)._replace(target=torch.ones(4, C + 1, dtype=torch.bool))),
        ValueError,
        r"target must be \(4, 4\) probabilities",
    ),
    "masks": (
        lambda: CutMix(C)(rows(4)._replace(target=torch.zeros(4, 6, 5).long())),
        ValueError,
        r"target must be .* got \(4, 6, 5\) torch.int64. Mix masks as the images, by Mixing.paste",
    ),
    "masks beside": (
        lambda: CutMix(C)(rows(4)._replace(extra={"depth": torch.zeros(4, 6, 5)})),
        ValueError,
        r"extra.depth must not lie on .* got a plain tensor .* Take it out of the batch. Mix masks",
    ),
    "boxes beside": (
        lambda: Mixup(C)(rows(4, (3, 8, 8))._replace(extra=[{"boxes": torch.ones(1, 4)}] * 4)),
        ValueError,
        r'extra.0.boxes must not lie on .* untouched=\("boxes",\)',
    ),
    "untouched": (lambda: Mixup(C, untouched=[1]), TypeError, "untouched must be names"),  # type: ignore[list-item]
    "soft target above": (
        lambda: Mixup(C)(rows(2)._replace(target=torch.tensor([[1.0, 0, 0, 0], [0, 1.5, 0, 0]]))),
        ValueError,
        r"target must be in \[0, 1\], got 1 rows outside \(first indices 1\)",
    ),
    "soft target below": (
        lambda: CutMix()(rows(2)._replace(target=torch.tensor([[1.25, -0.25], [0, 1.0]]))),
        ValueError,
        r"target must be in \[0, 1\], got 1 rows outside \(first indices 0\)",
    ),
    "soft target not mixed": (
        lambda: Mixup()(rows(2, strength=0.0)._replace(target=torch.full((2, C), 2.0))),
        ValueError,
        r"target must be in \[0, 1\], got 2 rows",
    ),
    "target list": (
        lambda: Mixup(C)(rows(4)._replace(target=[0, 1, 2, 3])),
        TypeError,
        "target must be a tensor, got list",
    ),
    "no classes": (lambda: Mixup()(rows()), ValueError, "num_classes must be given .* got None"),
    "uint8": (
        lambda: Mixup(C)(rows(4)._replace(input=torch.zeros(4, 3, dtype=torch.uint8))),
        TypeError,
        r"must be a floating tensor, got \(4, 3\) torch.uint8",
    ),
    "input rows": (
        lambda: Mixup(C)(rows(4)._replace(input=torch.rand(3, 5))),
        ValueError,
        r"must have 4 rows, got shape \(3, 5\)",
    ),
    "2-D CutMix": (
        lambda: CutMix(C)(rows(4, (5,))),
        ValueError,
        r"input must be \(b, ..., H, W\) images, got \(4, 5\)",
    ),
    "a list of images": (
        lambda: CutMix(C)(rows(2)._replace(input=[torch.rand(3, 4, 4)] * 2)),
        ValueError,
        "input must be .* got list",
    ),
    "a tuple": (lambda: Mixup(C)(tuple(rows())), TypeError, "batch must be a Sample .* got tuple"),  # type: ignore[arg-type]
    "a single sample": (
        lambda: Mixup(C)(Sample(torch.rand(3), 1, 2, 1.0, 1.0)),
        ValueError,
        r"batch must have rows, got index of shape \(\)",
    ),
    "generator": (
        lambda: Mixup(C)(rows(), np.random.default_rng(0)),  # type: ignore[arg-type]
        TypeError,
        "generator must be a torch.Generator on the CPU",
    ),
    "strength above": (
        lambda: Mixup(C)(rows(2, strength=[0.5, 1.5])),
        ValueError,
        r"strength must be in \[0, 1\], got 1 values outside \(first indices 1\)",
    ),
    "strength below": (
        lambda: CutMix(C)(rows(2, strength=[-0.5, 1.0])),
        ValueError,
        r"strength must be in \[0, 1\]",
    ),
    "strength nan": (
        lambda: Mixup(C)(rows(2, strength=[float("nan"), 1.0])),
        ValueError,
        r"strength must be in \[0, 1\]",
    ),
    "strengths": (
        lambda: Mixup(C)(rows(4)._replace(strength=torch.ones(3))),
        ValueError,
        "strength must",
    ),
    "weights": (
        lambda: Mixup(C)(rows(4)._replace(weight=torch.ones(3))),
        ValueError,
        r"must have 4 rows, got shape \(3,\)",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name: str) -> None:
    call, error, words = BAD[name]
    with pytest.raises(error, match=words) as raised:
        call()
    assert_worded(raised)


@pytest.mark.parametrize("kind", [Mixup, CutMix])
def test_a_lone_strong_row_in_a_larger_batch_stays_unmixed(kind: type[Mixup | CutMix]) -> None:
    batch = rows(4, strength=[0, 0.5, 0, 0])
    out = kind(C)(batch)
    assert not out.mixed.any()
    assert out.weight.equal(batch.weight)
    assert out.target.equal(F.one_hot(batch.target, C).float())


@pytest.mark.parametrize("kind", [Mixup, CutMix])
@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_a_single_row_stays_unmixed(kind: type[Mixup | CutMix], strength: float) -> None:
    batch = rows(1, strength=strength)
    for mixer in (kind(C), kind(C, 0.0), kind(C, probability=0)):
        out = mixer(batch)
        assert not out.mixed.any()
        assert out.input is batch.input
        assert out.weight.equal(batch.weight)
        assert out.target.equal(F.one_hot(batch.target, C).float())


@pytest.mark.parametrize("kind", [Mixup, CutMix])
def test_batches_of_any_size_pass_a_loader(kind: type[Mixup | CutMix]) -> None:
    """Of 40 draws by 3 the last batch has one, which is often a strong one."""
    data = WeightedAugmentedDataset(TensorDataset(torch.rand(22, 1, 4, 4), torch.arange(22) % C))
    alone = 0
    for seed in range(6):
        sampler = CoresetSampler(data, Uniform(), count=18, seed=seed)
        sampler.refresh(Evidence(22))
        mixed = [kind(C)(batch) for batch in DataLoader(data, 3, sampler=sampler)]
        assert len(mixed[-1].mixed) == 1
        assert not mixed[-1].mixed.any()
        alone += int(mixed[-1].strength > 0)
    assert alone


@pytest.mark.parametrize("kind", [Mixup, CutMix])
@pytest.mark.parametrize("dtype", [torch.bool, torch.float16, torch.float32, torch.float64])
def test_several_labels_a_row_are_mixed(kind: type[Mixup | CutMix], dtype: torch.dtype) -> None:
    labels = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [0, 1, 1, 1], [1, 0, 0, 1]])
    batch = rows(4)._replace(target=labels.to(dtype), weight=torch.ones(4))
    mixing = kind(C).sample(batch)
    out = kind(C).apply(batch, mixing).target
    lam = mixing.lam[:, None]
    wanted = lam * labels + (1 - lam) * labels[mixing.partner]
    assert out.dtype == (torch.float32 if dtype == torch.bool else dtype)
    torch.testing.assert_close(out.float(), wanted, rtol=0, atol=1e-3)


def test_what_lies_on_images_may_be_kept_by_name() -> None:
    batch = rows(4)._replace(extra={"view": torch.zeros(4, 6, 5), "name": ["a"] * 4})
    assert CutMix(C, untouched=("view",))(batch).extra is batch.extra
    assert Mixup(C)(rows(4, (6, 5))._replace(extra=batch.extra)).extra is batch.extra  # no images
