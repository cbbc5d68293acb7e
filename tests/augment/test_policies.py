from __future__ import annotations

import pickle
from dataclasses import fields
from itertools import permutations
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

from augloader.augment import policies
from augloader.augment.pairs import PAIRS
from augloader.augment.pixels.geometry import compose, moved_rows
from augloader.augment.pixels.ops import (
    BRIGHTNESS,
    COLOR,
    CONTRAST,
    FLIP,
    GATED,
    IDENTITY,
    INVERT,
    NEUTRAL,
    OPS,
    POSTERIZE,
    ROTATE,
    SHARPNESS,
    SHEAR_X,
    SIGNED,
    SOLARIZE,
    TRANSLATE_X,
    TRANSLATE_Y,
)
from augloader.augment.policies import (
    POLICIES,
    AugMix,
    Auto,
    Cutout,
    Erasing,
    Params,
    Perturb,
    Policy,
    PolicyName,
    Rand,
    Trivial,
)
from augloader.augment.transform import AdaptiveStrengthTransform
from augloader.core.keyed import uniforms
from tests.reference import sample_images

pytestmark = pytest.mark.usefixtures("one_thread")
Array = npt.NDArray[Any]
untyped: Any = policies
Shape = tuple[int, int, int, int]
BUILT: list[Policy] = [
    Trivial(),
    Trivial(5),
    Rand(),
    Rand(4, 30),
    Auto(),
    Auto("cifar10"),
    Auto("svhn"),
    AugMix(),
    AugMix(10, 2, 4, False),
    Cutout(),
    Cutout(1.0),
    Erasing(),
    Perturb(),
    Perturb(0.4, 0.0, 1.0, 0),
    Perturb(0.0, 1.0, 0.0, 3),
]
every = pytest.mark.parametrize("policy", BUILT, ids=repr)
DATASETS = {
    "imagenet": v2.AutoAugmentPolicy.IMAGENET,
    "cifar10": v2.AutoAugmentPolicy.CIFAR10,
    "svhn": v2.AutoAugmentPolicy.SVHN,
}


def draw(
    policy: Policy,
    rows: int,
    strength: float | Array,
    shape: tuple[int, int, int] = (3, 32, 48),
    seed: int = 0,
) -> Params:
    u = np.random.default_rng(seed).random((rows, policy.uniforms))
    return policy.draw(u, np.broadcast_to(strength, rows).astype(float), (rows, *shape))


def within(count: float, expected: float, n: int) -> bool:
    """Whether a count of n draws is within 4.5 standard deviations of the expected one."""
    share = expected / n
    return bool(abs(count - expected) <= 4.5 * np.sqrt(n * share * (1 - share)) + 1e-9)


def published(space: dict[str, Any], op: int, bins: int, height: int, width: int) -> Array:
    """Torchvision's magnitudes of an operation; 0 where it has none."""
    values = space[OPS[op]][0](bins, height, width)
    return np.zeros(bins) if values is None else values.double().numpy()


def truncated(op: int, values: Array) -> Array:
    """What torchvision's kernels make of a translation: int(magnitude)."""
    return np.trunc(values) if op in (TRANSLATE_X, TRANSLATE_Y) else values


@pytest.mark.parametrize("bins", [2, 3, 5, 9, 10, 13, 25, 31, 37, 64])
@pytest.mark.parametrize("size", [(32, 32), (224, 224), (97, 64), (8, 500)])
def test_trivial_is_published_at_strength_one(bins: int, size: tuple[int, int]) -> None:
    space = v2.TrivialAugmentWide._AUGMENTATION_SPACE
    names = [op for op in range(len(OPS)) if OPS[op] in space]
    op, level, sign = (
        part.ravel() for part in np.meshgrid(names, np.arange(bins), (0.2, 0.7), indexing="ij")
    )
    u = np.stack(
        [(np.searchsorted(names, op) + 0.5) / len(names), (level + 0.5) / bins, sign, sign], 1
    )
    params = Trivial(bins).draw(u, np.ones(len(u)), (len(u), 3, *size))
    assert params.op.flatten().tolist() == op.tolist()
    for i in range(len(u)):
        value = truncated(op[i], published(space, op[i], bins, *size)[level[i]])
        minus = op[i] in SIGNED and sign[i] <= 0.5
        assert float(params.magnitude[i]) == (-value if minus else value)


@pytest.mark.parametrize("magnitude", [0, 1, 9, 14, 30])
@pytest.mark.parametrize("size", [(32, 32), (97, 64)])
def test_rand_is_published_at_strength_one(magnitude: int, size: tuple[int, int]) -> None:
    space = v2.RandAugment._AUGMENTATION_SPACE
    params = draw(Rand(2, magnitude), 400, 1.0, (3, *size))
    seen = set()
    for op, value in zip(
        params.op.flatten().tolist(), params.magnitude.flatten().tolist(), strict=True
    ):
        like = truncated(op, published(space, op, 31, *size)[magnitude])
        assert abs(value) == like if op in SIGNED else value == like
        seen.add(OPS[op])
    assert seen == set(space)


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("size", [(32, 32), (224, 160)])
def test_auto_is_published_at_strength_one(dataset: Any, size: tuple[int, int]) -> None:
    space = v2.AutoAugment._AUGMENTATION_SPACE
    pairs = v2.AutoAugment(DATASETS[dataset])._policies
    rows, eps = len(pairs), 1e-9
    for first, second in ((0, 0), (0, 1), (1, 0), (1, 1)):  # just below, just above the chances
        chance = np.array([[half[1] for half in pair] for pair in pairs])
        u = np.full((rows, 7), 0.2)
        u[:, 0] = (np.arange(rows) + 0.5) / rows
        u[:, 1] = chance[:, 0] + (eps if first else -eps)
        u[:, 4] = chance[:, 1] + (eps if second else -eps)
        u[:, 5] = 0.7  # the sign of the second half
        params = Auto(dataset).draw(u.clip(0, 1 - 2**-53), np.ones(rows), (rows, 3, *size))
        for i, pair in enumerate(pairs):
            for k, (name, p, level) in enumerate(pair):
                op = OPS.index(name)
                applied = p > 0 and (p == 1 or not (first, second)[k])
                assert int(params.op[i, 0, k]) == (op if applied else IDENTITY)
                if applied:
                    value = truncated(op, published(space, op, 10, *size)[level or 0])
                    minus = op in SIGNED and k == 0
                    assert float(params.magnitude[i, 0, k]) == (-value if minus else value)


@pytest.mark.parametrize("severity", [1, 3, 10])
@pytest.mark.parametrize("all_ops", [True, False])
def test_augmix_is_published_at_strength_one(severity: int, all_ops: bool) -> None:
    known = v2.AugMix._AUGMENTATION_SPACE if all_ops else v2.AugMix._PARTIAL_AUGMENTATION_SPACE
    params = draw(AugMix(severity, 3, 2, all_ops), 800, 1.0, (3, 50, 32))
    seen: dict[int, set[float]] = {}
    for op, value in zip(
        params.op.flatten().tolist(), params.magnitude.flatten().tolist(), strict=True
    ):
        seen.setdefault(op, set()).add(value)
    assert {OPS[op] for op in seen} == set(known)
    for op, values in seen.items():
        like = set(truncated(op, published(known, op, 10, 50, 32)[:severity]).tolist())
        assert values == (like | {-value for value in like} if op in SIGNED else like)


def test_signs_are_even_and_gates_are_the_strength() -> None:
    rows = 60_000
    for strength in (0.2, 0.5, 0.9):
        params = draw(Trivial(), rows, strength)
        op, magnitude = params.op[:, 0, 0], params.magnitude[:, 0, 0]
        for number in SIGNED:
            values = magnitude[(op == number) & (magnitude != 0)]
            assert within(float((values > 0).sum()), len(values) / 2, len(values)), OPS[number]
        for number in GATED:
            chance = 0 if number in (INVERT, FLIP) else strength / 14
            assert within(float((op == number).sum()), rows * chance, rows), OPS[number]
        gated = 2 / 14 * (1 - strength)
        assert within(float((op == IDENTITY).sum()), rows * (1 / 14 + gated), rows)


@pytest.mark.parametrize("policy", [Trivial(), Rand(3)], ids=repr)
def test_operations_are_equally_frequent(policy: Policy) -> None:
    params = draw(policy, 40_000, 1.0)
    for k in range(params.op.shape[2]):
        counts = np.bincount(params.op[:, 0, k], minlength=len(OPS))
        assert counts[INVERT] == counts[FLIP] == 0
        counts = np.delete(counts, (INVERT, FLIP))
        like = 40_000 / 14
        assert ((counts - like) ** 2 / like).sum() < 40  # chi-square, 13 degrees: p = 1e-4
    levels = params.magnitude[params.op == SHEAR_X].abs()
    assert len(levels.unique()) == (31 if isinstance(policy, Trivial) else 1)


@pytest.mark.parametrize("dataset", DATASETS)
def test_pairs_are_equally_frequent_with_their_chances(dataset: Any) -> None:
    rows = 50_000
    params = draw(Auto(dataset), rows, 1.0)
    pairs = v2.AutoAugment(DATASETS[dataset])._policies
    for k in range(2):
        like = np.zeros(len(OPS))
        for pair in pairs:
            like[OPS.index(pair[k][0])] += pair[k][1] * rows / 25
        like[IDENTITY] = rows - like.sum()
        counts = np.bincount(params.op[:, 0, k], minlength=len(OPS))
        for op in range(len(OPS)):
            assert within(counts[op], like[op], rows), OPS[op]


def test_augmix_shares() -> None:
    rows = 40_000
    for width in (1, 3, 5):
        mix = draw(AugMix(mixture_width=width), rows, 1.0).mix
        assert mix is not None
        shares = mix.double().numpy()
        assert shares.shape == (rows, 1 + width)
        assert np.abs(shares.sum(1) - 1).max() < 1e-6
        assert shares.min() >= 0
        # Beta(1, 1) for the image: uniform. Dirichlet(1, ..., 1) among the chains.
        assert abs(shares[:, 0].mean() - 1 / 2) < 4.5 / np.sqrt(12 * rows)
        assert abs(shares[:, 0].var() - 1 / 12) < 0.002
        among = shares[:, 1:] / shares[:, 1:].sum(1, keepdims=True)
        variance = (width - 1) / (width**2 * (width + 1))
        assert np.abs(among.mean(0) - 1 / width).max() < 4.5 * np.sqrt(variance / rows) + 1e-6
        assert np.abs(among.var(0) - variance).max() < 0.03 * variance + 1e-6
        if width > 1:
            together = np.cov(among.T)[0, 1]
            assert abs(together + 1 / (width**2 * (width + 1))) < 0.05 / width**2
            assert abs(np.corrcoef(shares[:, 0], among[:, 0])[0, 1]) < 4.5 / np.sqrt(rows)


def test_augmix_depths() -> None:
    rows = 30_000
    params = draw(AugMix(), rows, 1.0)
    assert params.op.shape == (rows, 3, 3)
    depths = (params.op != IDENTITY).sum(2)
    for chain in range(3):
        for depth in (1, 2, 3):
            assert within(float((depths[:, chain] == depth).sum()), rows / 3, rows)
    assert ((params.op != IDENTITY).long().diff(dim=2) <= 0).all()  # the first ones of a chain
    assert (draw(AugMix(chain_depth=4), 50, 1.0).op != IDENTITY).all()


def test_augmix_of_extreme_numbers() -> None:
    for width in (1, 3):
        policy = AugMix(mixture_width=width)
        for value in (0.0, 1 - 2**-53):
            mix = policy.draw(np.full((1, policy.uniforms), value), np.ones(1), (1, 3, 8, 8)).mix
            assert mix is not None
            assert mix.isfinite().all()
            assert float(mix.sum()) == pytest.approx(1)


@every
def test_extreme_random_numbers_are_in_range(policy: Policy) -> None:
    for value in (0.0, 1 - 2**-53):
        for size in ((1, 1), (4, 4), (1, 90), (33, 2)):
            u = np.full((1, policy.uniforms), value)
            params = policy.draw(u, np.ones(1), (1, 3, *size))
            assert ((params.op >= 0) & (params.op < len(OPS))).all()
            if params.boxes is not None:
                top, left, bottom, right = params.boxes[0].tolist()
                assert 0 <= top <= bottom <= size[0]
                assert 0 <= left <= right <= size[1]


def distance(op: Tensor, magnitude: Tensor) -> Tensor:
    """How far magnitudes are from those that change nothing; gated operations count 1."""
    neutral = torch.tensor([NEUTRAL.get(number, 0.0) for number in range(len(OPS))])[op]
    gated = torch.isin(op, torch.tensor(GATED))
    far = torch.where(gated, 1.0, (magnitude - neutral).abs())
    return torch.where(op == IDENTITY, 0.0, far)


@every
@given(st.integers(0, 2**32), st.floats(0, 1), st.floats(0, 1))
def test_more_strength_is_never_less_change(policy: Policy, seed: int, a: float, b: float) -> None:
    low, high = sorted((a, b))
    weak, strong = (draw(policy, 40, s, seed=seed) for s in (low, high))
    assert (distance(weak.op, weak.magnitude) <= distance(strong.op, strong.magnitude)).all()
    both = (weak.op != IDENTITY) & (strong.op != IDENTITY)
    assert torch.equal(weak.op[both], strong.op[both])
    assert not ((weak.op != IDENTITY) & (strong.op == IDENTITY)).any()
    assert (weak.magnitude * strong.magnitude >= 0).all()
    if weak.boxes is not None and strong.boxes is not None:
        cut = (weak.boxes[:, 2:] > weak.boxes[:, :2]).all(1)
        assert (weak.boxes[cut, :2] >= strong.boxes[cut, :2]).all()
        assert (weak.boxes[cut, 2:] <= strong.boxes[cut, 2:]).all()
    if weak.mix is not None and strong.mix is not None:
        assert torch.equal(weak.mix, strong.mix)


@every
def test_strength_zero_does_nothing(policy: Policy) -> None:
    params = draw(policy, 300, 0.0)
    assert (params.op == IDENTITY).all()
    if params.boxes is not None:
        assert (params.boxes[:, 2:] == params.boxes[:, :2]).any(1).all()


@every
def test_tiny_strengths_hardly_move(policy: Policy) -> None:
    params = draw(policy, 300, 1e-6)
    assert (distance(params.op, params.magnitude) < 1e-3).all()
    assert not torch.isin(params.op, torch.tensor(GATED)).any()


def test_magnitudes_move_linearly() -> None:
    s = np.linspace(0.05, 0.95, 2000)
    full, part = draw(Trivial(), 2000, 1.0), draw(Trivial(), 2000, s)
    seen = set()
    for op, like, value, share in zip(
        full.op.flatten().tolist(),
        full.magnitude.flatten().tolist(),
        part.magnitude.flatten().tolist(),
        s.tolist(),
        strict=True,
    ):
        seen.add(op)
        neutral = NEUTRAL.get(op, 0.0)
        moved = neutral + share * (like - neutral)
        if op in (TRANSLATE_X, TRANSLATE_Y):  # truncated once, from the published number
            assert value == int(value)
            assert abs(value - moved) < 2
        elif op == POSTERIZE:
            assert value == round(moved)
        elif op not in (*GATED, IDENTITY):
            assert value == pytest.approx(moved, rel=1e-6, abs=1e-6)
    assert {SOLARIZE, ROTATE, BRIGHTNESS, CONTRAST, COLOR, SHARPNESS, POSTERIZE, TRANSLATE_X} < seen


@every
def test_rows_are_independent(policy: Policy) -> None:
    u = np.random.default_rng(0).random((30, policy.uniforms))
    s = np.random.default_rng(1).random(30)
    whole = policy.draw(u, s, (30, 3, 20, 24))
    order = np.random.default_rng(2).permutation(30)
    mixed = policy.draw(u[order], s[order], (30, 3, 20, 24))
    picked = whole.select(torch.from_numpy(order))
    for a, b in zip(tensors(picked), tensors(mixed), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(
        tensors(whole.row(7)), tensors(policy.draw(u[7:8], s[7:8], (1, 3, 20, 24))), strict=True
    ):
        assert torch.equal(a, b)
    assert whole.row(7).shape == (1, 3, 20, 24)


def tensors(params: Params) -> list[Tensor]:
    parts = (getattr(params, field.name) for field in fields(params))
    return [part for part in parts if isinstance(part, Tensor)]


@every
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_fields(policy: Policy, rows: int) -> None:
    params = draw(policy, rows, 0.5)
    assert params.shape == (rows, 3, 32, 48)
    chains, length = params.op.shape[1:]
    assert params.op.shape == params.magnitude.shape == (rows, chains, length)
    assert (params.op.dtype, params.magnitude.dtype) == (torch.int64, torch.float32)
    assert params.magnitude.isfinite().all()
    assert (params.boxes is not None) == isinstance(policy, Cutout | Erasing)
    assert (params.mix is not None) == isinstance(policy, AugMix)
    assert policy.coloured == (length > 0)
    if params.boxes is not None:
        assert (params.boxes.shape, params.boxes.dtype) == ((rows, 4), torch.int64)
    if params.mix is not None:
        assert (params.mix.shape, params.mix.dtype) == ((rows, 1 + chains), torch.float32)
    again = pickle.loads(pickle.dumps(params))
    assert again.shape == params.shape
    for a, b in zip(tensors(params), tensors(again), strict=True):
        assert torch.equal(a, b)
    assert pickle.loads(pickle.dumps(policy)) == policy


@pytest.mark.parametrize("size", [(32, 32), (20, 41)])
@pytest.mark.parametrize("share", [0.3, 0.5, 1.0])
def test_cutout(size: tuple[int, int], share: float) -> None:
    rows = 20_000
    boxes = draw(Cutout(share), rows, 1.0, (3, *size)).boxes
    assert boxes is not None
    side = round(share * min(size))
    height, width = (boxes[:, 2:] - boxes[:, :2]).unbind(1)
    assert max(int(height.max()), int(width.max())) == side
    inside = (boxes[:, :2] > 0).all(1) & (boxes[:, 2:] < torch.tensor(size)).all(1)
    assert (height[inside] == side).all()
    assert (width[inside] == side).all()
    # The centre is every pixel, equally often: the middle pixel is covered side² / (H W) of times.
    middle = torch.tensor(size) // 2
    covered = ((boxes[:, :2] <= middle) & (middle < boxes[:, 2:])).all(1)
    assert (
        within(float(covered.sum()), rows * min(1, side**2 / (size[0] * size[1])), rows)
        or share == 1
    )
    corner = ((boxes[:, :2] <= 0) & (boxes[:, 2:] > 0)).all(1)
    reach = side // 2 + 1  # so far the centre may be from the corner's pixel
    like = rows * min(reach, size[0]) * min(reach, size[1]) / (size[0] * size[1])
    assert within(float(corner.sum()), like, rows)


def test_cutout_side_is_proportional_to_the_strength() -> None:
    s = np.linspace(0, 1, 1000)
    boxes = draw(Cutout(0.5), 1000, s, (1, 64, 64)).boxes
    assert boxes is not None
    sides = (boxes[:, 2:] - boxes[:, :2]).numpy()
    assert (sides <= np.round(32 * s)[:, None]).all()
    inside = ((boxes[:, :2] > 0).all(1) & (boxes[:, 2:] < 64).all(1)).numpy()
    assert (sides[inside] == np.round(32 * s)[inside, None]).all()


@pytest.mark.parametrize("size", [(64, 64), (40, 90)])
def test_erasing_has_torchvisions_areas_and_ratios(size: tuple[int, int]) -> None:
    rows, (h, w) = 20_000, size
    boxes = draw(Erasing(), rows, 1.0, (3, h, w)).boxes
    assert boxes is not None
    assert (boxes >= 0).all()
    assert (boxes[:, 2:] <= torch.tensor(size)).all()
    height, width = (boxes[:, 2:] - boxes[:, :2]).double().unbind(1)
    area, ratio = height * width / (h * w), height / width
    assert 0.015 < float(area.min()) < 0.022
    assert 0.32 < float(area.max()) < 0.34
    assert float(area.mean()) == pytest.approx(0.175, abs=0.003)
    assert float(area.var()) == pytest.approx(0.31**2 / 12, rel=0.05)
    assert float(ratio.min()) > 0.25
    assert float(ratio.max()) < 3.9
    # Where it fits for any area, the logarithm of the ratio is uniform, as torchvision draws it.
    small = area < 0.05
    log = ratio[small].log()
    assert float(log.mean()) == pytest.approx((np.log(0.3) + np.log(3.3)) / 2, abs=0.06)
    assert float(log.std()) == pytest.approx((np.log(3.3) - np.log(0.3)) / np.sqrt(12), rel=0.06)
    # The place is uniform among those that fit.
    free = torch.tensor(size) - (boxes[:, 2:] - boxes[:, :2])
    place = (boxes[:, :2] + 0.5) / (free + 1)
    assert (place.mean(0) - 0.5).abs().max() < 0.015
    assert (place.var(0) - 1 / 12).abs().max() < 0.005


def test_erasing_agrees_with_torchvision_on_average() -> None:
    torch.manual_seed(0)
    image = torch.zeros(1, 48, 48)
    shares = [
        float((v2.RandomErasing(p=1.0, value=1.0)(image) > 0).double().mean()) for _ in range(1500)
    ]
    boxes = draw(Erasing(), 1500, 1.0, (1, 48, 48)).boxes
    assert boxes is not None
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1).double() / 48**2
    assert float(area.mean()) == pytest.approx(np.mean(shares), abs=0.015)
    assert float(area.std()) == pytest.approx(np.std(shares), abs=0.01)


@pytest.mark.parametrize("size", [(1, 100), (100, 1), (2, 3), (1, 1)])
def test_erasing_of_narrow_images(size: tuple[int, int]) -> None:
    boxes = draw(Erasing(), 500, 1.0, (3, *size)).boxes
    assert boxes is not None
    assert (boxes[:, :2] <= boxes[:, 2:]).all()
    assert (boxes[:, 2:] <= torch.tensor(size)).all()


def test_perturb_is_torchvisions_crop_flip_jitter_and_smoothing() -> None:
    """Every row, pixel by pixel, by the operations as torchvision has them."""
    images = (sample_images("smooth", 60, 3, 16, 24, 0) * 255).to(torch.uint8)
    strong, flips, orders = AdaptiveStrengthTransform("perturb", seed=3), 0, set()
    policy = Perturb()
    keys = torch.stack([torch.zeros(60, dtype=torch.int64), torch.arange(60)], 1)
    u = uniforms(3, keys.numpy(), policy.uniforms)
    for strength in (1.0, 0.5):
        out = strong(images, strength, keys=keys)
        for row, (x, numbers) in enumerate(zip(images, u, strict=True)):
            right, down = (
                int(strength * (int(v * (2 * most + 1)) - most))
                for v, most in zip(numbers[:2], (3, 2), strict=True)
            )
            order = list(permutations((4, 5, 6)))[int(numbers[3] * 6)]
            orders.add(order)
            for which in order:
                factor = 1 + strength * 0.4 * (2 * numbers[which] - 1)
                x = JITTERS[which](x, factor)
            for _ in range(2):
                x = TF.adjust_sharpness(x, 1 - strength * numbers[7])
            x = TF.crop(TF.pad(x, [3, 2]), 2 - down, 3 - right, 16, 24)
            if numbers[2] < 0.5 * strength:
                flips, x = flips + 1, TF.horizontal_flip(x)
            off = (out[row].int() - x.int()).abs()
            assert int(off.max()) <= 3  # a sum rounded in another order, and what became of it
            assert float((off > 0).float().mean()) < 0.02
    assert flips > 20
    assert len(orders) == 6


JITTERS = {4: TF.adjust_brightness, 5: TF.adjust_contrast, 6: TF.adjust_saturation}


def test_perturb_draws_as_it_says() -> None:
    rows, shape = 40_000, (3, 32, 64)
    for strength in (1.0, 0.3):
        params = draw(Perturb(), rows, strength, shape)
        op, magnitude = params.op[:, 0], params.magnitude[:, 0]
        assert within(float((op == FLIP).sum()), 0.5 * strength * rows, rows)
        for k, most in ((0, 8), (1, 4)):
            counts = magnitude[:, k].int().add(most).bincount(minlength=2 * most + 1)
            if strength == 1:
                like = rows / (2 * most + 1)
                assert ((counts - like).abs() < 4.5 * like**0.5).all()
            assert int(magnitude[:, k].abs().max()) == int(most * strength)
        for number in (BRIGHTNESS, CONTRAST, COLOR):
            values = magnitude[op == number]
            assert len(values) == rows
            assert float(values.abs().max()) <= 0.4 * strength * (1 + 1e-6)
            assert abs(float(values.mean())) < 0.01
            assert abs(float(values.std()) - strength * 0.8 / 12**0.5) < 0.01
        blur = magnitude[op == SHARPNESS].view(rows, 2)
        assert (blur[:, 0] == blur[:, 1]).all()
        assert float(blur.min()) >= -strength
        assert float(blur.max()) <= 0
        assert abs(float(blur.mean()) + strength / 2) < 0.01
    assert not (draw(Perturb(flip=0.0), 500, 1.0).op == FLIP).any()
    assert (draw(Perturb(flip=1.0), 500, 1.0).op == FLIP).any(2).all()


def test_every_data_set_has_its_25_pairs() -> None:
    assert PAIRS.keys() == DATASETS.keys()
    for name in PAIRS:
        assert [part.shape for part in untyped._pairs(name)] == [(25, 2)] * 3


def test_known_names() -> None:
    assert get_args(PolicyName) == tuple(POLICIES)
    assert list(POLICIES) == ["trivial", "rand", "auto", "augmix", "cutout", "erasing", "perturb"]
    for policy in POLICIES.values():
        policy()
        assert policy.__doc__
        assert "Source:" in policy.__doc__


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (
            lambda: untyped.Trivial(1),
            ValueError,
            "num_magnitude_bins must be at least 2, got 1. Publ",
        ),
        (
            lambda: untyped.Trivial(31.0),
            TypeError,
            "num_magnitude_bins must be an integer, got 31.0. Pu",
        ),
        (
            lambda: untyped.Trivial(True),
            TypeError,
            "num_magnitude_bins must be an integer, got True. Pu",
        ),
        (lambda: untyped.Rand(0), ValueError, "num_ops must be at least 1, got 0. Published: 2."),
        (
            lambda: untyped.Rand(2.5),
            TypeError,
            "num_ops must be an integer, got 2.5. Published: 2.",
        ),
        (
            lambda: untyped.Rand(2, -1),
            ValueError,
            "magnitude must be at least 0, got -1. Published: 9.",
        ),
        (
            lambda: untyped.Rand(2, 31),
            ValueError,
            "magnitude must be below num_magnitude_bins=31, got 31. ",
        ),
        (
            lambda: untyped.Rand(2, 9, 9),
            ValueError,
            "magnitude must be below num_magnitude_bins=9, got 9. ",
        ),
        (
            lambda: untyped.Rand(2, "9"),
            TypeError,
            "magnitude must be an integer, got '9'. Published: 9.",
        ),
        (
            lambda: untyped.Auto("mnist"),
            ValueError,
            "dataset must be one of 'imagenet', 'cifar10', 'svhn', g",
        ),
        (lambda: untyped.Auto(None), ValueError, "dataset must be one of .*, got None. Choose"),
        (
            lambda: untyped.AugMix(0),
            ValueError,
            "severity must be at least 1, got 0. Published: 3.",
        ),
        (
            lambda: untyped.AugMix(11),
            ValueError,
            "severity must be at most 10, got 11. Published: 3.",
        ),
        (
            lambda: untyped.AugMix(3, 0),
            ValueError,
            "mixture_width must be at least 1, got 0. Published",
        ),
        (
            lambda: untyped.AugMix(3, 3, 0),
            ValueError,
            "chain_depth must be above 0, or -1 .*, got 0. Pass",
        ),
        (
            lambda: untyped.AugMix(3, 3, -2),
            ValueError,
            "chain_depth must be at least -1, got -2. -1 draws",
        ),
        (
            lambda: untyped.AugMix(all_ops="no"),
            TypeError,
            "all_ops must be True or False, got 'no'. Pub",
        ),
        (lambda: untyped.Cutout(0), ValueError, r"size must be in \(0, 1\], got 0. "),
        (lambda: untyped.Cutout(1.5), ValueError, r"size must be in \(0, 1\], got 1.5. "),
        (lambda: untyped.Cutout(float("nan")), ValueError, r"size must be in \(0, 1\], got nan. "),
        (
            lambda: untyped.Cutout("half"),
            TypeError,
            r"size must be a number in \(0, 1\], got 'half'. ",
        ),
        (
            lambda: untyped.Erasing((0, 0.3)),
            ValueError,
            r"scale must be two shares .*, got \(0, 0.3\). Pas",
        ),
        (
            lambda: untyped.Erasing((0.3, 0.2)),
            ValueError,
            "scale must be two shares of the area, .* Pass",
        ),
        (
            lambda: untyped.Erasing((0.3, 1.0)),
            ValueError,
            "scale must be two shares of the area, .* Pass",
        ),
        (
            lambda: untyped.Erasing((0.1, np.nan)),
            ValueError,
            "scale must be two shares of the area, .* Pass",
        ),
        (
            lambda: untyped.Erasing(0.3),
            TypeError,
            "scale must be two numbers, got 0.3. Pass low and high.",
        ),
        (
            lambda: untyped.Erasing((0.1, 0.2, 0.3)),
            TypeError,
            "scale must be two numbers, got .* Pass low",
        ),
        (
            lambda: untyped.Erasing(("a", "b")),
            TypeError,
            "scale must be two numbers, got .* Pass low",
        ),
        (
            lambda: untyped.Erasing(ratio=(0, 1)),
            ValueError,
            r"ratio must be two ratios .*, got \(0, 1\). P",
        ),
        (
            lambda: untyped.Erasing(ratio=(2, 1)),
            ValueError,
            "ratio must be two ratios of height by width, ",
        ),
        (
            lambda: untyped.Erasing(ratio=(1, np.inf)),
            ValueError,
            "ratio must be two ratios of height by",
        ),
        (lambda: Perturb(crop=1.5), ValueError, r"crop must be in \[0, 1\], got 1\.5"),
        (lambda: Perturb(flip=-0.1), ValueError, r"flip must be in \[0, 1\], got -0\.1"),
        (lambda: untyped.Perturb(jitter="0.4"), TypeError, r"jitter must be a number in \[0, 1\]"),
        (lambda: untyped.Perturb(blur=1.5), TypeError, "blur must be an integer"),
        (lambda: Perturb(blur=-1), ValueError, "blur must be at least 0, got -1"),
        (
            lambda: untyped.Erasing(ratio=None),
            TypeError,
            "ratio must be two numbers, got None. Pass low",
        ),
    ],
)
def test_construction_errors(build: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build()


@pytest.mark.parametrize("name", POLICIES)
def test_matrices_and_moved_rows_are_those_of_each_chain(name: str) -> None:
    policy: Policy = POLICIES[name]()
    rng = np.random.default_rng(3)
    u, s = rng.random((30, policy.uniforms)), rng.random(30)
    whole = policy.draw(u, s, (30, 3, 20, 24))
    chains = whole.op.shape[1]
    assert whole.matrices.shape == (30, chains, 3, 3)
    assert len(whole.moved) == chains
    assert whole.matrices is whole.matrices  # composed once
    for m in range(chains):
        op, magnitude = whole.op[:, m], whole.magnitude[:, m]
        assert torch.equal(whole.matrices[:, m], compose(op, magnitude, 20, 24))
        assert torch.equal(whole.moved[m], moved_rows(op, magnitude))
        still = torch.ones(30, dtype=torch.bool)
        still[whole.moved[m]] = False
        assert (whole.matrices[still, m] == torch.eye(3)).all()
    some = torch.tensor([7, 3])
    assert torch.equal(whole.select(some).matrices, whole.matrices[some])
    none = whole.select(torch.zeros(0, dtype=torch.int64))
    assert none.matrices.shape == (0, chains, 3, 3)
    copied = pickle.loads(pickle.dumps(whole))
    assert torch.equal(copied.matrices, whole.matrices)
