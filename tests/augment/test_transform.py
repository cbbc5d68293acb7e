from __future__ import annotations

import copy
import pickle
from typing import Any

import kornia.augmentation as K
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

from augloader import Draw, Sample, WeightedAugmentedDataset
from augloader.augment.pixels import kernels
from augloader.augment.pixels.geometry import compose
from augloader.augment.pixels.ops import GEOMETRY, IDENTITY
from augloader.augment.policies import POLICIES, Params
from augloader.augment.targets import follow
from augloader.augment.transform import AdaptiveStrengthTransform
from tests.pretend_cuda import pretend_cuda
from tests.reference import (
    as_dtype,
    naive_warp,
    random_state,
    require_nearest,
    sample_images,
    torchvision_operation,
)

pytestmark = pytest.mark.usefixtures("one_thread")
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
every = pytest.mark.parametrize("name", POLICIES)
types = pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)


def batch(
    rows: int = 24, channels: int = 3, dtype: torch.dtype = torch.uint8, seed: int = 0
) -> Tensor:
    """Images that every operation changes: neither flat nor stretched to the whole range."""
    images = 0.1 + 0.8 * sample_images("smooth", rows, channels, 20, 26, seed)
    images = images + 0.05 * sample_images("noise", rows, channels, 20, 26, seed)
    return as_dtype(images, dtype)


def keys_of(rows: int, epoch: int = 0, first: int = 0) -> Tensor:
    indices = torch.arange(first, first + rows)
    return torch.stack([torch.full_like(indices, epoch), indices, torch.ones_like(indices)], 1)


def drawn(
    transform: AdaptiveStrengthTransform, images: Tensor, strength: Tensor | float, seed: int = 0
) -> Params:
    params = transform.sample(images.shape, strength, torch.Generator().manual_seed(seed))
    assert isinstance(params, Params)
    return params


def coloured(image: Tensor, op: list[int], magnitude: list[float]) -> Tensor:
    """A chain's colour operations by torchvision's kernels."""
    for number, value in zip(op, magnitude, strict=True):
        if number not in GEOMETRY:
            image = torchvision_operation(image, number, value)
    return image


def chained(
    image: Tensor,
    op: list[int],
    magnitude: list[float],
    interpolation: str,
    fill: float | None = None,
) -> Tensor:
    """The documented order by torchvision's kernels: colour, then one resampling."""
    image = coloured(image, op, magnitude)
    moves = [(o, m) for o, m in zip(op, magnitude, strict=True) if o in GEOMETRY and m != 0]
    if len(moves) == 1:
        return torchvision_operation(image, *moves[0], interpolation, fill)
    if moves:
        matrix = compose(torch.tensor([op]), torch.tensor([magnitude]), *image.shape[1:])[0].numpy()
        planes = [naive_warp(p.double().numpy(), matrix, interpolation, fill or 0.0) for p in image]
        warped = torch.from_numpy(np.stack(planes))
        return (warped.round() if image.dtype == torch.uint8 else warped).to(image.dtype)
    return image


@types
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("trivial", {}),
        ("rand", {}),
        ("rand", {"num_ops": 1, "magnitude": 30}),
        ("auto", {}),
        ("auto", {"dataset": "cifar10"}),
        ("auto", {"dataset": "svhn"}),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_pixels_are_those_of_torchvisions_kernels(
    name: str, options: dict[str, Any], dtype: torch.dtype, channels: int, strength: float
) -> None:
    images = batch(80, channels, dtype)
    transform = AdaptiveStrengthTransform(name, **options)
    params = drawn(transform, images, strength)
    out = transform.apply(images, params)
    wrong = between = 0
    for i, image in enumerate(images):
        op, magnitude = params.op[i, 0].tolist(), params.magnitude[i, 0].tolist()
        like = chained(image, op, magnitude, "nearest")
        matrix = compose(params.op[i], params.magnitude[i], 20, 26)
        steps = sum(o not in (IDENTITY, *GEOMETRY) for o in op) > 1  # make more of a rounded sum
        tolerance = 1 if dtype == torch.uint8 or steps else 1e-6
        source = coloured(image, op, magnitude)[None]
        near = require_nearest(out[i : i + 1], like[None], source, matrix, tolerance=tolerance)
        difference = (out[i].double() - like.double()).abs()
        off = difference > (0 if dtype == torch.uint8 else 1e-6)
        wrong, between = wrong + int((off & ~near).sum()), between + int(near.sum())
    assert wrong <= 1e-3 * out.numel()  # rounding of sums
    assert between <= 0.01 * out[:, 0].numel()


@types
def test_bilinear(dtype: torch.dtype) -> None:
    images = batch(60, 3, dtype)
    transform = AdaptiveStrengthTransform("rand", interpolation="bilinear")
    params = drawn(transform, images, 1.0)
    out = transform.apply(images, params)
    for i, image in enumerate(images):
        op, magnitude = params.op[i, 0].tolist(), params.magnitude[i, 0].tolist()
        like = chained(image, op, magnitude, "bilinear")
        tolerance = 1 if dtype == torch.uint8 else 2e-5
        assert (out[i].double() - like.double()).abs().max() <= tolerance


@pytest.mark.parametrize("dtype", [torch.uint8, *FLOATS], ids=str)
@pytest.mark.parametrize("depth", [-1, 1])
def test_augmix_pixels(dtype: torch.dtype, depth: int) -> None:
    images = batch(40, 3, dtype)
    transform = AdaptiveStrengthTransform("augmix", chain_depth=depth)
    strength = torch.linspace(0, 1, 40)
    params = drawn(transform, images, strength)
    assert params.mix is not None
    out = transform.apply(images, params)
    exact = images if dtype in (torch.uint8, torch.float64) else images.float()
    for i, image in enumerate(exact):
        like = params.mix[i, 0].double() * image.double()
        for m in range(3):
            op, magnitude = params.op[i, m].tolist(), params.magnitude[i, m].tolist()
            like += (
                params.mix[i, 1 + m].double() * chained(image, op, magnitude, "bilinear").double()
            )
        # Half a level of rounding, and at most one more where a chain's own rounding differs.
        tolerance = {torch.uint8: 1.5, torch.float16: 1e-3, torch.bfloat16: 4e-3}.get(dtype, 2e-5)
        difference = (out[i].double() - like).abs()
        assert difference.max() <= tolerance
        if dtype == torch.uint8:
            assert (difference > 0.5 + 1e-3).double().mean() < 0.02
    assert torch.equal(out[0], images[0])


@every
@pytest.mark.parametrize("dtype", [torch.uint8, *FLOATS], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_shape_dtype_and_input(name: str, dtype: torch.dtype, channels: int) -> None:
    images = batch(24, channels, dtype)
    before = images.clone()
    strength = torch.linspace(0, 1, 24)
    out = AdaptiveStrengthTransform(name)(images, strength)
    assert (out.shape, out.dtype, out.device) == (images.shape, images.dtype, images.device)
    assert torch.equal(images, before)
    assert torch.equal(out[0], images[0])
    assert not torch.equal(out, images)
    assert out.data_ptr() != images.data_ptr()
    assert out.isfinite().all()


@every
@pytest.mark.parametrize("dtype", [torch.uint8, *FLOATS], ids=str)
def test_strength_zero_is_the_identity(name: str, dtype: torch.dtype) -> None:
    images = batch(24, 3, dtype)
    for strength in (0, 0.0, torch.zeros(24), torch.tensor(0.0)):
        out = AdaptiveStrengthTransform(name)(images, strength)
        assert torch.equal(out, images)
        assert out.data_ptr() != images.data_ptr()


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_rounded_once(name: str, dtype: torch.dtype) -> None:
    images = batch(24, 3, dtype)
    transform = AdaptiveStrengthTransform(name)
    params = drawn(transform, images, 0.9)
    expected = transform.apply(images.float(), params).to(dtype)
    assert torch.equal(transform.apply(images, params), expected)


@every
@types
def test_rows_depend_on_nothing_but_their_keys_and_strength(name: str, dtype: torch.dtype) -> None:
    transform = AdaptiveStrengthTransform(name, seed=4)
    images, keys = batch(24, 3, dtype), keys_of(24)
    strength = torch.linspace(0, 1, 24)
    whole = transform(images, strength, keys=keys)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    assert torch.equal(transform(images[order], strength[order], keys=keys[order]), whole[order])
    parts = [
        transform(images[i : i + 5], strength[i : i + 5], keys=keys[i : i + 5])
        for i in range(0, 24, 5)
    ]
    assert torch.equal(torch.cat(parts), whole)
    for i in range(24):
        alone = transform(images[i], float(strength[i]), keys=keys[i])
        assert torch.equal(alone, whole[i])
    assert torch.equal(AdaptiveStrengthTransform(name, seed=4)(images, strength, keys=keys), whole)
    assert torch.equal(transform(images, strength, keys=keys.int()), whole)
    assert not torch.equal(transform(images, strength, keys=keys_of(24, epoch=1)), whole)
    assert not torch.equal(transform(images, strength, keys=keys_of(24, first=1)), whole)
    assert not torch.equal(transform(images, strength, keys=keys.flip(1)), whole)
    other = AdaptiveStrengthTransform(name, seed=5)
    assert not torch.equal(other(images, strength, keys=keys), whole)


IMAGES = batch(4)


@pytest.mark.slow
@every
@given(
    st.integers(0, 2**64 - 1),
    st.integers(0, 3),
    st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4),
    st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4),
)
def test_other_strengths_do_not_matter(
    name: str, seed: int, row: int, values: list[float], others: list[float]
) -> None:
    transform = AdaptiveStrengthTransform(name, seed=seed)
    others[row] = values[row]
    first = transform(IMAGES, torch.tensor(values), keys=keys_of(4))
    second = transform(IMAGES, torch.tensor(others), keys=keys_of(4))
    assert torch.equal(first[row], second[row])
    if values[row] == 0:
        assert torch.equal(first[row], IMAGES[row])
    generators = [torch.Generator().manual_seed(seed % 2**63) for _ in range(2)]
    first = transform(IMAGES, torch.tensor(values), generators[0])
    second = transform(IMAGES, torch.tensor(others), generators[1])
    assert torch.equal(first[row], second[row])


@every
def test_change_grows_with_strength(name: str) -> None:
    images = batch(200)
    transform = AdaptiveStrengthTransform(name)
    changes = [
        float(
            (transform.apply(images, drawn(transform, images, s)).int() - images.int())
            .abs()
            .double()
            .mean()
        )
        for s in (0.0, 1e-6, 0.25, 0.5, 1.0)
    ]
    assert changes[0] == 0
    # Kernels that cut off lose a level as soon as they do anything; "perturb" has five a row.
    assert changes[1] < (1.5 if name == "perturb" else 0.2)
    assert changes == sorted(changes)
    assert changes[2] < 0.7 * changes[4]


@every
def test_replaying_parameters_gives_the_same_pixels(name: str) -> None:
    images = batch()
    transform = AdaptiveStrengthTransform(name)
    params = transform.sample(images.shape, torch.linspace(0, 1, 24))
    first = transform.apply(images, params)
    transform(images, 1.0)
    assert torch.equal(transform.apply(images, params), first)
    assert torch.equal(transform.apply(images, pickle.loads(pickle.dumps(params))), first)
    again = AdaptiveStrengthTransform(name, seed=99)
    assert torch.equal(again.apply(images, params), first)


@every
def test_seeds(name: str) -> None:
    images = batch()
    one, two = AdaptiveStrengthTransform(name), AdaptiveStrengthTransform(name)
    other = AdaptiveStrengthTransform(name, seed=1)
    first, second = one(images, 0.8), one(images, 0.8)
    assert torch.equal(two(images, 0.8), first)
    assert torch.equal(two(images, 0.8), second)
    assert not torch.equal(first, second)
    assert not torch.equal(other(images, 0.8), first)


@every
def test_explicit_generator_and_keys_leave_the_own_one(name: str) -> None:
    images = batch()
    one, two = AdaptiveStrengthTransform(name), AdaptiveStrengthTransform(name)
    generator = torch.Generator().manual_seed(0)
    first = one(images, 1.0, generator)
    assert not torch.equal(one(images, 1.0, generator), first)
    assert torch.equal(one(images, 1.0, generator.manual_seed(0)), first)
    one(images, 1.0, keys=keys_of(24))
    assert torch.equal(one(images, 1.0), two(images, 1.0))


@every
def test_global_random_state_is_not_changed_and_not_used(name: str) -> None:
    results = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        state = random_state()
        transform = AdaptiveStrengthTransform(name)
        results.append(transform(batch(), 0.5))
        transform(batch(), 0.5, torch.Generator())
        transform(batch(), 0.5, keys=keys_of(24))
        assert random_state() == state
    assert torch.equal(*results)


@every
@types
def test_single_images(name: str, dtype: torch.dtype) -> None:
    image = batch(1, 3, dtype)[0]
    for seed in range(5):
        out = AdaptiveStrengthTransform(name, seed=seed)(image, 0.9)
        assert out.shape == image.shape
        assert out.data_ptr() != image.data_ptr()
        alone = AdaptiveStrengthTransform(name, seed=seed)(image[None], torch.tensor([0.9]))
        assert torch.equal(out, alone[0])
        again = AdaptiveStrengthTransform(name, seed=seed)(image, torch.tensor(0.9))
        assert torch.equal(out, again)


@every
@pytest.mark.parametrize("rows", [0, 1])
def test_small_batches(name: str, rows: int) -> None:
    images = batch(3)[:rows]
    transform = AdaptiveStrengthTransform(name)
    assert transform(images, torch.ones(rows)).shape == images.shape
    assert transform(images, 1.0, keys=keys_of(rows)).shape == images.shape
    assert transform(images.float() / 255, 1.0).shape == images.shape


@every
@types
def test_any_memory_layout(name: str, dtype: torch.dtype) -> None:
    images = batch(24, 3, dtype)
    transform = AdaptiveStrengthTransform(name)
    params = transform.sample(images.shape, 1.0)
    expected = transform.apply(images, params)
    wide = torch.zeros(24, 3, 20, 40, dtype=dtype)
    wide[..., 3:29] = images
    strided = images.flip(0)[torch.arange(23, -1, -1)]
    for layout in (
        images.contiguous(memory_format=torch.channels_last),
        images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
        wide[..., 3:29],
        strided,
    ):
        before = layout.clone()
        assert torch.equal(transform.apply(layout, params), expected)
        assert torch.equal(layout, before)
    last = images.contiguous(memory_format=torch.channels_last)
    for out in (transform, AdaptiveStrengthTransform(name, dtype=torch.float16)):
        assert out.apply(last, params).is_contiguous(memory_format=torch.channels_last)
        assert out.apply(images, params).is_contiguous()
    image = images[0].permute(1, 2, 0).contiguous().permute(2, 0, 1)
    single = transform.sample(image.shape, 1.0, keys=keys_of(1)[0])
    assert torch.equal(transform.apply(image, single), transform.apply(images[0], single))


@every
def test_images_of_torchvision_stay_what_they_are(name: str) -> None:
    for images in (batch(), batch()[0]):
        out = AdaptiveStrengthTransform(name)(tv_tensors.Image(images), 0.7)
        assert type(out) is tv_tensors.Image
        plain = AdaptiveStrengthTransform(name)(images, 0.7)
        assert type(plain) is Tensor
        assert torch.equal(out.as_subclass(Tensor), plain)


@every
def test_nothing_requires_grad(name: str) -> None:
    images = batch(24, 3, torch.float32).requires_grad_()
    strength = torch.full((24,), 0.5, requires_grad=True)
    out = AdaptiveStrengthTransform(name)(images, strength)
    assert not out.requires_grad
    expected = AdaptiveStrengthTransform(name)(images.detach(), 0.5)
    assert torch.equal(out, expected)
    with torch.inference_mode():
        assert torch.equal(
            AdaptiveStrengthTransform(name)(batch(24, 3, torch.float32), 0.5), expected
        )


@pytest.mark.parametrize("name", ["cutout", "erasing"])
@pytest.mark.parametrize("channels", [2, 5])
def test_cut_outs_take_any_channels(name: str, channels: int) -> None:
    images = batch(24, channels)
    out = AdaptiveStrengthTransform(name)(images, 1.0)
    changed = (out != images).any(1)
    assert changed.flatten(1).any(1).all()
    assert (out.transpose(0, 1)[:, changed] == 0).all()


@types
@pytest.mark.parametrize("name", ["cutout", "erasing"])
def test_cut_outs_are_their_boxes(name: str, dtype: torch.dtype) -> None:
    images = batch(24, 3, dtype)
    fill = (10, 20.4, 30) if dtype == torch.uint8 else (0.1, 0.2, 0.3)
    transform = AdaptiveStrengthTransform(name, fill=fill)
    params = drawn(transform, images, torch.linspace(0, 1, 24))
    assert params.boxes is not None
    expected = images.clone()
    for i, (top, left, bottom, right) in enumerate(params.boxes.tolist()):
        for c, value in enumerate(fill):
            expected[i, c, top:bottom, left:right] = round(value) if dtype == torch.uint8 else value
    assert torch.equal(transform.apply(images, params), expected)


@types
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("share", [(0.5,), (0.1, 0.7, 1.0)])
def test_fill(dtype: torch.dtype, interpolation: Any, share: tuple[float, ...]) -> None:
    images = batch(60, 3, dtype)
    fill = tuple((255 if dtype == torch.uint8 else 1) * value for value in share)
    transform = AdaptiveStrengthTransform("trivial", fill=fill, interpolation=interpolation)
    params = drawn(transform, images, 1.0)
    out = transform.apply(images, params)
    geometric = 0
    for i, image in enumerate(images):
        op, magnitude = int(params.op[i, 0, 0]), float(params.magnitude[i, 0, 0])
        if op in GEOMETRY and interpolation == "nearest":
            geometric += 1
            like = torchvision_operation(image, op, magnitude, "nearest", fill)
            matrix = compose(params.op[i], params.magnitude[i], 20, 26)
            near = require_nearest(out[i : i + 1], like[None], image[None], matrix, fill)
            assert near.float().mean() < 0.1
        elif op in GEOMETRY:
            whole = compose(params.op[i], params.magnitude[i], 20, 26)[0].numpy()
            geometric += 1
            for c in range(3):
                plane = naive_warp(
                    image[c].double().numpy(), whole, "bilinear", fill[c % len(fill)]
                )
                tolerance = 0.51 if dtype == torch.uint8 else 1e-4
                assert np.abs(out[i, c].double().numpy() - plane).max() < tolerance
    assert geometric > 10
    if len(fill) == 1:
        number = AdaptiveStrengthTransform("trivial", fill=fill[0], interpolation=interpolation)
        assert torch.equal(number.apply(images, params), out)


@every
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64], ids=str)
def test_mean_std_and_dtype(name: str, dtype: torch.dtype) -> None:
    images = batch(24, 3, dtype)
    plain = AdaptiveStrengthTransform(name)(images, 0.7)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    for scaled in FLOATS:
        floats = v2.ToDtype(scaled if scaled == torch.float64 else torch.float32, scale=True)(plain)
        exact = scaled in (torch.float32, torch.float64)
        out = AdaptiveStrengthTransform(name, dtype=scaled)(images, 0.7)
        assert out.dtype == scaled
        if exact:
            torch.testing.assert_close(out, floats, rtol=0, atol=1e-7)
        else:
            assert torch.equal(
                out, AdaptiveStrengthTransform(name, dtype=torch.float32)(images, 0.7).to(scaled)
            )
        out = AdaptiveStrengthTransform(name, mean=mean, std=std, dtype=scaled)(images, 0.7)
        like = v2.Normalize(mean, std)(floats)
        assert out.dtype == scaled
        if exact:
            torch.testing.assert_close(out, like, rtol=1e-6, atol=1e-6)
        else:
            whole = AdaptiveStrengthTransform(name, mean=mean, std=std)(images, 0.7)
            assert torch.equal(out, whole.to(scaled))
    default = AdaptiveStrengthTransform(name, mean=mean, std=std)(images, 0.7)
    assert default.dtype == torch.float32
    one = AdaptiveStrengthTransform(name, mean=[0.5], std=[0.25])(images, 0.7)
    floats = TF.to_dtype(plain, torch.float32, scale=True)
    torch.testing.assert_close(one, floats.sub(0.5).div(0.25), rtol=1e-6, atol=1e-6)


@every
def test_masks_go_along_or_raise(name: str) -> None:
    images, masks = batch(), tv_tensors.Mask(torch.randint(0, 9, (24, 20, 26)))
    transform = AdaptiveStrengthTransform(name)
    labels = torch.arange(24)
    if name == "augmix":
        with pytest.raises(ValueError, match="images must have one geometry for a Mask to follow"):
            transform((images, masks), 1.0)
        return
    out, moved, same = transform((images, masks, labels), 1.0, keys=keys_of(24))
    assert torch.equal(out, transform(images, 1.0, keys=keys_of(24)))
    assert type(moved) is tv_tensors.Mask
    assert torch.equal(moved, masks) == (name in ("cutout", "erasing"))
    assert same is labels
    assert isinstance(transform((images,), 0.5), tuple)
    single = transform((images[0], tv_tensors.Mask(masks[0])), 1.0, keys=keys_of(24)[0])
    assert torch.equal(single[0], out[0])
    assert torch.equal(single[1], moved[0])
    for key, entry in (("image", images), ("x", tv_tensors.Image(images))):
        named = transform({"mask": masks, key: entry, "y": labels}, 1.0, keys=keys_of(24))
        assert list(named) == ["mask", key, "y"]
        assert torch.equal(named[key], out)
        assert torch.equal(named["mask"], moved)
    with pytest.raises(TypeError, match='images must have the key "image" as a mapping'):
        transform({"x": images}, 1.0)


@every
def test_pickle_and_deepcopy_continue(name: str) -> None:
    images = batch()
    transform = AdaptiveStrengthTransform(name, fill=3.0, mean=[0.5], std=[0.5], seed=2)
    transform(images, 0.5)
    pickled, copied = pickle.loads(pickle.dumps(transform)), copy.deepcopy(transform)
    expected = transform(images, 0.5)
    assert torch.equal(pickled(images, 0.5), expected)
    assert torch.equal(copied(images, 0.5), expected)


def test_options_and_repr() -> None:
    text = repr(AdaptiveStrengthTransform("rand", num_ops=3, magnitude=5, seed=7))
    assert text.startswith(
        "AdaptiveStrengthTransform(Rand(num_ops=3, magnitude=5, num_magnitude_bins=31)"
    )
    assert text.endswith("seed=7)")
    # AugMix is published with bilinear interpolation, all others with nearest.
    images = batch()
    for name in POLICIES:
        expected: Any = "bilinear" if name == "augmix" else "nearest"
        plain = AdaptiveStrengthTransform(name)(images, 1.0)
        assert torch.equal(
            AdaptiveStrengthTransform(name, interpolation=expected)(images, 1.0), plain
        )


def test_tiny_and_odd_images() -> None:
    for name in POLICIES:
        for size in ((1, 1), (1, 7), (2, 2), (3, 1)):
            for dtype in (torch.uint8, torch.float32):
                images = as_dtype(sample_images("noise", 30, 3, *size), dtype)
                out = AdaptiveStrengthTransform(name)(images, torch.linspace(0, 1, 30))
                assert out.shape == images.shape
                assert torch.equal(out[0], images[0])


class Photos(Dataset[Tensor]):
    """Augments single images, by their keys or by the transform's own generator."""

    def __init__(self, name: str, keyed: bool) -> None:
        self.images, self.keyed = batch(12), keyed
        self.transform = AdaptiveStrengthTransform(name, seed=3)

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Tensor:
        keys = torch.tensor([5, index, 1]) if self.keyed else None
        out: Tensor = self.transform(self.images[index if self.keyed else 0], 0.9, keys=keys)
        return out


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("name", ["trivial", "augmix"])
def test_workers_do_not_matter_with_keys(name: str) -> None:
    data = Photos(name, keyed=True)
    keys = torch.tensor([[5, index, 1] for index in range(12)])
    expected = data.transform(data.images, 0.9, keys=keys)
    for workers, size in ((0, 3), (1, 5), (2, 3)):
        loader = DataLoader(
            data,
            batch_size=size,
            num_workers=workers,
            multiprocessing_context="fork" if workers else None,
        )
        assert torch.equal(torch.cat(list(loader)), expected)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_workers_and_epochs_differ_without_keys() -> None:
    data = Photos("augmix", keyed=False)  # one image, over and over

    def epochs(seed: int) -> Tensor:
        loader = DataLoader(
            data,
            batch_size=2,
            num_workers=2,
            multiprocessing_context="fork",
            generator=torch.Generator().manual_seed(seed),
        )
        return torch.cat([images for _ in range(2) for images in loader]).flatten(1)

    rows = epochs(0)
    assert len(rows.unique(dim=0)) == 24
    assert torch.equal(epochs(0), rows)
    assert not torch.equal(epochs(1), rows)


def test_worker_seeds_are_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Info:
        def __init__(self, seed: int) -> None:
            self.seed = seed

    def draw(seed: int, worker_seed: int | None) -> tuple[float, ...]:
        info = None if worker_seed is None else Info(worker_seed)
        monkeypatch.setattr(torch.utils.data, "get_worker_info", lambda: info)
        params = AdaptiveStrengthTransform("augmix", seed=seed).sample((3, 2, 2), 1.0)
        assert isinstance(params, Params)
        assert params.mix is not None
        return tuple(params.mix.flatten().tolist())

    keys: list[tuple[int, int | None]] = [(0, None), (1, None), (0, 5), (1, 5), (0, 6), (5, 1)]
    assert len({draw(*key) for key in keys}) == len(keys)
    assert draw(1, 5) == draw(1, 5)


def test_golden_parameters() -> None:
    """A change of these changes what every user's run does."""
    transform = AdaptiveStrengthTransform("rand", seed=1)
    params = transform.sample((3, 3, 32, 32), 1.0, keys=keys_of(3))
    assert isinstance(params, Params)
    assert params.op.flatten().tolist() == [8, 8, 6, 9, 1, 2]
    assert params.magnitude.flatten().tolist() == pytest.approx(
        [0.0, 0.0, -0.27, 0.7, 0.09, 0.09], rel=1e-6
    )


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (
            ["trivia"],
            {},
            ValueError,
            r"policy must be one of 'trivial', 'rand', .*'perturb', got 'tri",
        ),
        (
            ["Trivial"],
            {},
            ValueError,
            r"policy must be one of .*, got 'Trivial'\. Choose one of them, or",
        ),
        (
            ["trivial"],
            {"strenght": 1},
            TypeError,
            r"options of 'trivial' must be among num_magnitude_b",
        ),
        (
            ["rand"],
            {"dataset": "svhn"},
            TypeError,
            r"unexpected keyword argument 'dataset'\. Fix its",
        ),
        (
            ["auto"],
            {"dataset": "mnist"},
            ValueError,
            r"dataset must be one of .*, got 'mnist'\. Choose",
        ),
        (
            ["rand"],
            {"num_ops": 0},
            ValueError,
            r"num_ops must be at least 1, got 0\. Published: 2\.",
        ),
        (["rand"], {"seed": -1}, ValueError, r"seed must be in \[0, 2\^64\), got -1\. Pass for"),
        (
            ["rand"],
            {"seed": 2**64},
            ValueError,
            r"seed must be in \[0, 2\^64\), got 18446744073709551616",
        ),
        (["rand"], {"seed": 1.5}, TypeError, r"seed must be an int, got 1\.5\. Pass for"),
        (["rand"], {"seed": True}, TypeError, r"seed must be an int, got True\. Pass for"),
        (["rand"], {"seed": None}, TypeError, r"seed must be an int, got None\. Pass for"),
        (
            ["rand"],
            {"interpolation": "bicubic"},
            ValueError,
            r"interpolation must be one of 'nearest', ",
        ),
        (
            ["rand"],
            {"fill": None},
            TypeError,
            r"fill must be numbers, one a channel, got None\. Pass",
        ),
        (
            ["rand"],
            {"fill": "0"},
            TypeError,
            r"fill must be numbers, one a channel, got '0'\. Pass",
        ),
        (
            ["rand"],
            {"fill": True},
            TypeError,
            r"fill must be numbers, one a channel, got \(True,\)\. P",
        ),
        (
            ["rand"],
            {"fill": ()},
            ValueError,
            r"fill must be finite numbers, got \(\)\. Give one a cha",
        ),
        (
            ["rand"],
            {"fill": [0, torch.nan]},
            ValueError,
            r"fill must be finite numbers, got \[0, nan\]\.",
        ),
        (
            ["rand"],
            {"mean": 0.5, "std": 0.5},
            TypeError,
            r"mean must be numbers, one a channel, got 0\.5",
        ),
        (
            ["rand"],
            {"mean": [0.5]},
            ValueError,
            r"mean and std must be given together, got mean=\[0\.5",
        ),
        (
            ["rand"],
            {"std": [0.5]},
            ValueError,
            r"mean and std must be given together, got mean=None",
        ),
        (
            ["rand"],
            {"mean": [0.5], "std": [0]},
            ValueError,
            r"std must be above 0, got \[0\]\. Give each",
        ),
        (
            ["rand"],
            {"mean": [torch.inf], "std": [1]},
            ValueError,
            r"mean must be finite numbers, got",
        ),
        (
            ["rand"],
            {"dtype": torch.uint8},
            ValueError,
            r"dtype must be a floating dtype or None, got to",
        ),
        (
            ["rand"],
            {"dtype": "float32"},
            ValueError,
            r"dtype must be a floating dtype or None, got fl",
        ),
    ],
)
def test_construction_errors(
    arguments: Any, options: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        AdaptiveStrengthTransform(*arguments, **options)


@pytest.mark.parametrize(
    ("strength", "error", "message"),
    [
        (
            torch.tensor([0, 2, 1, 1, 0, -0.1]),
            ValueError,
            r"got 2 values outside .* 1, 5\)\. Clamp",
        ),
        (
            torch.full((6,), torch.nan),
            ValueError,
            r"got 6 values .* \(first indices 0, 1, 2, 3, 4\)",
        ),
        (1.5, ValueError, r"strength must be in \[0, 1\], got 1\.5\. Clamp"),
        (2, ValueError, r"strength must be in \[0, 1\], got 2\.0\. Clamp"),
        (torch.nan, ValueError, r"strength must be in \[0, 1\], got nan\. Clamp"),
        (torch.tensor(-1.0), ValueError, r"strength must be in \[0, 1\], got -1\.0\. Clamp"),
        (torch.ones(5), ValueError, r"of shape \(6,\), got shape \(5,\)\. Pass one"),
        (torch.ones(6, 1), ValueError, r"of shape \(6,\), got shape \(6, 1\)\. Pass one"),
        (torch.ones(6, dtype=torch.bool), TypeError, r"floating tensor, got torch\.bool\. Convert"),
        (
            torch.ones(6, dtype=torch.int64),
            TypeError,
            r"floating tensor, got torch\.int64\. Convert",
        ),
        (True, TypeError, r"strength must be a float or a floating tensor, got bool\. Convert"),
        ("1", TypeError, r"strength must be a float or a floating tensor, got str\. Convert"),
        (None, TypeError, r"strength must be a float or a floating tensor, got NoneType\. Conv"),
        ([1.0] * 6, TypeError, r"strength must be a float or a floating tensor, got list\. Conv"),
    ],
)
def test_strength_errors(strength: Any, error: type[Exception], message: str) -> None:
    for name in POLICIES:
        transform = AdaptiveStrengthTransform(name)
        with pytest.raises(error, match=message):
            transform(batch(6), strength)
        with pytest.raises(error, match=message):
            transform.sample((6, 3, 20, 26), strength)


def test_strength_of_one_image_and_on_another_device() -> None:
    transform = AdaptiveStrengthTransform("trivial")
    with pytest.raises(
        ValueError, match=r"must be one number or of shape \(\), got shape \(1,\)\."
    ):
        transform(batch()[0], torch.ones(1))
    with pytest.raises(
        ValueError, match=r"strength must be on the CPU or on cpu as the images, got me"
    ):
        transform(batch(), torch.ones(24, device="meta"))


def test_strength_of_any_floating_type() -> None:
    images = batch(2)
    expected = AdaptiveStrengthTransform("trivial")(images, torch.tensor([0.25, 0.5]))
    for dtype in FLOATS:
        strength = torch.tensor([0.25, 0.5]).to(dtype)
        assert torch.equal(AdaptiveStrengthTransform("trivial")(images, strength), expected)
    whole = AdaptiveStrengthTransform("trivial")(images, 1)
    assert torch.equal(AdaptiveStrengthTransform("trivial")(images, torch.ones(2)), whole)
    assert torch.equal(AdaptiveStrengthTransform("trivial")(images, np.float64(1)), whole)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("value", [-0.5, 1.2, 255.0, torch.nan, torch.inf])
def test_floats_outside_their_range(dtype: torch.dtype, value: float) -> None:
    images = batch(4, 3, dtype)
    images[2, 1, 3, 3] = value
    for name in POLICIES:
        transform = AdaptiveStrengthTransform(name)
        params = transform.sample(images.shape, 0.0)
        with pytest.raises(
            ValueError, match=r"images must be in \[0, 1\] where they are floating, got val"
        ):
            transform(images, 0.0)
        with pytest.raises(
            ValueError, match=r"got values from .* to .*\. Augment before normalising"
        ):
            transform.apply(images, params)


def test_rounding_of_interpolation_may_leave_the_range() -> None:
    images = torch.full((2, 3, 4, 4), 1 + 1e-6)
    assert torch.equal(AdaptiveStrengthTransform("trivial")(images, 0.0), images)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64, torch.int8])
def test_image_type_errors(dtype: torch.dtype) -> None:
    for name in POLICIES:
        transform = AdaptiveStrengthTransform(name)
        images = torch.zeros(1, 3, 4, 4, dtype=dtype)
        with pytest.raises(
            TypeError, match=f"images must be a uint8 or floating tensor, got {dtype}. C"
        ):
            transform(images, 0.0)
        with pytest.raises(
            TypeError, match=f"images must be a uint8 or floating tensor, got {dtype}. C"
        ):
            transform.apply(images, transform.sample((1, 3, 4, 4), 0.0))


def test_image_and_shape_errors() -> None:
    transform = AdaptiveStrengthTransform("trivial")
    for value in (np.zeros((1, 3, 4, 4)), None, ()):
        name = type(value).__name__
        with pytest.raises(
            TypeError, match=f"images must be a uint8 or floating tensor, got {name}. C"
        ):
            transform(value, 0.0)
    for shape in ((4, 4), (1, 1, 3, 4, 4)):
        with pytest.raises(
            ValueError, match=r"images must be \(B, C, H, W\) or \(C, H, W\), got shape"
        ):
            transform(torch.zeros(shape), 0.0)
        with pytest.raises(
            ValueError, match=r"batch_shape must be \(B, C, H, W\) or \(C, H, W\), got"
        ):
            transform.sample(shape, 0.0)
    for empty in ((2, 3, 0, 4), (2, 0, 4, 4), (3, 4, 0)):
        with pytest.raises(
            ValueError, match=r"batch_shape must have at least one channel and one pixel"
        ):
            transform.sample(empty, 0.0)
    for channels in (2, 4):
        for name in ("trivial", "rand", "auto", "augmix"):
            with pytest.raises(
                ValueError, match=rf"images must have 1 or 3 channels .*, got {channels}\."
            ):
                AdaptiveStrengthTransform(name)(torch.zeros(2, channels, 4, 4), 0.0)


def test_params_errors() -> None:
    transform = AdaptiveStrengthTransform("trivial")
    params = transform.sample((2, 3, 4, 4), 0.0)
    with pytest.raises(
        ValueError, match=r"params are for, \(2, 3, 4, 4\), got \(1, 3, 4, 4\)\. Call"
    ):
        transform.apply(torch.zeros(3, 4, 4), params)
    with pytest.raises(
        ValueError, match=r"params are for, \(2, 3, 4, 4\), got \(2, 1, 4, 4\)\. Call"
    ):
        transform.apply(torch.zeros(2, 1, 4, 4), params)
    wrong: Any = {"op": 0}
    with pytest.raises(
        TypeError, match=r"params must be the Params that sample returned, got dict\."
    ):
        transform.apply(torch.zeros(2, 3, 4, 4), wrong)


def test_fill_mean_and_std_errors_at_use() -> None:
    two = AdaptiveStrengthTransform("trivial", fill=(0.5, 0.5))
    with pytest.raises(
        ValueError, match="fill must be one number or one for each of 3 channels, got 2"
    ):
        two(batch(), 1.0)
    for channels, stats in ((3, [0.5, 0.5]), (1, [0.5, 0.5, 0.5])):
        normal = AdaptiveStrengthTransform("cutout", mean=stats, std=stats)
        with pytest.raises(
            ValueError, match=f"mean must be one number or one for each of {channels} ch"
        ):
            normal(batch(2, channels), 1.0)
    odd = AdaptiveStrengthTransform("cutout", mean=[0.5] * 3, std=[0.5] * 2)
    with pytest.raises(
        ValueError, match="std must be one number or one for each of 3 channels, got 2"
    ):
        odd(batch(), 1.0)
    for name in POLICIES:
        with pytest.raises(
            ValueError, match=r"fill must be in \[0, 1\] for torch\.float32 images, got \(128"
        ):
            AdaptiveStrengthTransform(name, fill=128)(batch(4, 3, torch.float32), 0.0)
        for value in (-1.0, 256.0):
            with pytest.raises(
                ValueError, match=r"fill must be in \[0, 255\] for torch\.uint8 images, got"
            ):
                AdaptiveStrengthTransform(name, fill=value)(batch(), 0.0)


def test_generator_and_keys_errors() -> None:
    transform = AdaptiveStrengthTransform("trivial")
    wrong: Any = 0
    with pytest.raises(
        TypeError, match=r"generator must be a torch.Generator on the CPU, got 0\. Pass"
    ):
        transform.sample((2, 3, 4, 4), 0.0, generator=wrong)
    with pytest.raises(
        ValueError, match=r"generator must be None where keys are given, got both\. C"
    ):
        transform(batch(), 1.0, torch.Generator(), keys=keys_of(24))
    for keys in (
        torch.ones(24, 3),
        torch.ones(24, 3).bool(),
        torch.ones(24, 3) * 1j,
        [[0, 1, 2]] * 24,
    ):
        with pytest.raises(
            TypeError, match=r"keys must be an integer tensor, got .*\. Pass batch\.keys"
        ):
            transform(batch(), 1.0, keys=keys)
    for shape in ((23, 3), (24,), (24, 3, 1), (24, 0), ()):
        with pytest.raises(
            ValueError, match=r"keys must have shape \(24, k\), a row an image, got shape"
        ):
            transform(batch(), 1.0, keys=torch.zeros(shape, dtype=torch.int64))
    for shape in ((1, 3), (0,), ()):
        with pytest.raises(
            ValueError, match=r"keys must have shape \(k,\), .*of one image, got shape"
        ):
            transform(batch()[0], 1.0, keys=torch.zeros(shape, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"keys must be 0 or more, got -3\. Pass batch\.keys\."):
        transform(batch(), 1.0, keys=keys_of(24, epoch=-3))


def test_unknown_keywords_of_calls() -> None:
    transform: Any = AdaptiveStrengthTransform("trivial")
    with pytest.raises(TypeError, match="unexpected keyword argument 'key'"):
        transform(batch(), 1.0, key=keys_of(24))
    with pytest.raises(TypeError, match="unexpected keyword argument 'rng'"):
        transform.sample((2, 3, 4, 4), 1.0, rng=None)


def test_chains_leave_unchanged_rows_alone() -> None:
    """Rows without an operation, or with one whose magnitude is 0, are copies."""
    images = batch(200, 3, torch.float32)
    transform = AdaptiveStrengthTransform("trivial")
    params = drawn(transform, images, 1.0)
    still = (params.op == IDENTITY) | (
        torch.isin(params.op, torch.tensor(GEOMETRY)) & (params.magnitude == 0)
    )
    rows = still.flatten(1).all(1)
    assert int(rows.sum()) > 5
    assert torch.equal(transform.apply(images, params)[rows], images[rows])


# A Sample, and where transforms are put --------------------------------------------------------


def samples(rows: int = 12, dtype: torch.dtype = torch.uint8, **fields: Any) -> Sample:
    batch_of = Sample(
        batch(rows, 3, dtype),
        torch.arange(rows) % 4,
        torch.arange(rows) + 5,
        torch.ones(rows),
        torch.linspace(0, 1, rows),
        torch.arange(rows) % 3,
        torch.full((rows,), 2),
        {"name": [str(i) for i in range(rows)]},
    )
    return batch_of._replace(**fields)


def apart(transform: AdaptiveStrengthTransform, given: Sample) -> Sample:
    """The Sample, augmented by hand."""
    return given._replace(input=transform(given.input, given.strength, keys=given.keys))


def assert_same(one: Any, two: Any) -> None:
    assert type(one) is type(two)
    if isinstance(one, Tensor):
        assert torch.equal(one.as_subclass(Tensor), two.as_subclass(Tensor))
    elif isinstance(one, dict):
        assert one.keys() == two.keys()
        assert_same(tuple(one.values()), tuple(two.values()))
    elif isinstance(one, tuple | list):
        for a, b in zip(one, two, strict=True):
            assert_same(a, b)
    else:
        assert one == two


@every
@types
def test_a_sample_is_its_images_strengths_and_keys(name: str, dtype: torch.dtype) -> None:
    transform = AdaptiveStrengthTransform(name, seed=6)
    given = samples(dtype=dtype)
    before = copy.deepcopy(given)
    out = transform(given)
    assert_same(out, apart(transform, given))
    assert_same(given, before)
    assert not torch.equal(out.input, given.input)
    assert torch.equal(out.input[0], given.input[0])  # of strength 0
    first = torch.Generator().manual_seed(1)
    expected = transform(given.input, given.strength, torch.Generator().manual_seed(1))
    assert torch.equal(transform(given, generator=first).input, expected)


@every
def test_a_single_sample(name: str) -> None:
    transform = AdaptiveStrengthTransform(name, seed=6)
    data = WeightedAugmentedDataset([(image, i) for i, image in enumerate(batch(6))])
    for index in range(6):
        draw = Draw(index, copy=1, strength=0.7, epoch=3)
        single = data[draw]
        out = transform(single)
        assert_same(out, apart(transform, single))
        inside = WeightedAugmentedDataset(data.data, strong=transform)[draw]
        assert_same(out, inside)


def test_kornia_operations_draw_a_batch_without_keys_and_an_image_with_them() -> None:
    one, two = (AdaptiveStrengthTransform(K.RandomAffine(30.0, p=1.0), seed=3) for _ in range(2))
    given = samples(dtype=torch.float32)
    for _ in range(2):
        assert_same(one(given), given._replace(input=two(given.input, given.strength)))
    single = Sample(given.input[5], 1, 5, np.float32(1), np.float32(0.6), 1, 2)
    assert_same(one(single), apart(two, single))
    assert_same(one(single), one(single))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"strength": 0.5},
            r"^strength must be left out beside a Sample, .* got both\. Call strong",
        ),
        ({"strength": torch.ones(12)}, r"^strength must be left out beside a Sample"),
        (
            {"keys": keys_of(12)},
            r"^keys must be left out beside a Sample, which has its own, got bo",
        ),
        ({"strength": 1.0, "keys": keys_of(12)}, r"^strength must be left out beside a Sample"),
    ],
)
def test_a_sample_has_its_own_strength_and_keys(options: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        AdaptiveStrengthTransform("trivial")(samples(), **options)


def test_samples_without_images_or_strengths() -> None:
    transform = AdaptiveStrengthTransform("trivial")
    with pytest.raises(TypeError, match="images must be a uint8 or floating tensor, got NoneType"):
        transform(samples(input=None))
    with pytest.raises(TypeError, match="strength must be a float or a floating tensor, got None"):
        transform(samples(strength=None))
    with pytest.raises(TypeError, match="strength must be a float or a floating tensor, got None"):
        transform(batch())


def on_images(rows: int) -> tuple[tv_tensors.Mask, list[dict[str, Any]]]:
    """Masks of a batch, and boxes and points one entry an image."""
    masks = tv_tensors.Mask(torch.randint(0, 9, (rows, 20, 26)))
    size = {"canvas_size": (20, 26)}
    boxes = tv_tensors.BoundingBoxes([[3.0, 4.0, 12.0, 15.0]], format="XYXY", **size)
    points = tv_tensors.KeyPoints([[3.0, 4.0]], **size)
    return masks, [{"boxes": boxes, "points": points, "id": i} for i in range(rows)]


@pytest.mark.parametrize("name", ["trivial", "rand", "auto", "cutout"])
def test_what_lies_on_the_images_of_a_sample_follows(name: str) -> None:
    transform = AdaptiveStrengthTransform(name, seed=6)
    masks, each = on_images(12)
    plain = samples()
    image, *moved = transform((plain.input, masks, each), plain.strength, keys=plain.keys)
    assert torch.equal(moved[0], masks) == (name == "cutout")
    fields: dict[str, Any] = {"masks": moved[0], "each": moved[1], "names": ["a", "b"]}
    given = {"masks": masks, "each": each, "names": ["a", "b"]}
    for target, extra, wanted in (
        (masks, (), (moved[0], ())),
        (each, {}, (moved[1], {})),
        (given, each[:0], (fields, [])),
        (plain.target, given, (plain.target, fields)),
        # As the default collate makes them: lists with one entry a field.
        ([plain.target, plain.weight], [masks, each], ([plain.target, plain.weight], moved)),
        ((1, masks), (each, ["a", "b"]), ((1, moved[0]), (moved[1], ["a", "b"]))),
    ):
        out = transform(plain._replace(target=target, extra=extra))
        assert_same(out, plain._replace(input=image, target=wanted[0], extra=wanted[1]))
    single = Sample(plain.input[7], tv_tensors.Mask(masks[7]), 12, 1.0, 7 / 11, 1, 2, each[7])
    out = transform(single)
    assert torch.equal(out.target, moved[0][7])
    assert_same(out.extra, moved[1][7])
    both = transform(plain._replace(input=(plain.input, masks)))
    assert_same(both.input, (image, moved[0]))


def test_geometry_is_composed_once_for_all_that_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(*arguments: Any) -> Tensor:
        calls.append(arguments)
        return compose(*arguments)

    monkeypatch.setattr("augloader.augment.policies.compose", counted)
    masks, each = on_images(12)
    for target in (masks, each, {"masks": masks, "each": each}):
        calls.clear()
        AdaptiveStrengthTransform("rand", magnitude=20)(samples(target=target, extra=[masks, each]))
        assert len(calls) == 1


def test_fields_of_a_batch_of_as_many_rows_are_not_one_an_image() -> None:
    """Two fields and two rows: the second field is the masks of both images."""
    transform = AdaptiveStrengthTransform("rand", magnitude=20, seed=2)
    plain, (masks, _) = samples(2, strength=torch.ones(2)), on_images(2)
    _, moved = transform((plain.input, masks), plain.strength, keys=plain.keys)
    out = transform(plain._replace(extra=[plain.target, masks]))
    assert torch.equal(out.extra[1], moved)


def test_masks_that_would_stay_are_refused_in_samples() -> None:
    plain, (masks, each) = samples(dtype=torch.float32), on_images(12)
    kornia = AdaptiveStrengthTransform(K.RandomAffine(30.0, p=1.0))
    integers = masks.as_subclass(Tensor)
    for transform in (AdaptiveStrengthTransform("trivial"), kornia):
        for fields in ({"target": integers}, {"extra": [integers]}, {"target": {"a": (integers,)}}):
            with pytest.raises(ValueError, match=r" must be a tv_tensors.Mask to follow its im"):
                transform(plain._replace(**fields))
    for target, kind in ((masks, "Mask"), ([{"a": each[0]["boxes"]}] * 12, "BoundingBoxes")):
        with pytest.raises(
            TypeError, match=f"must have a named policy for a {kind} to follow, got"
        ):
            kornia(plain._replace(target=target))
    with pytest.raises(ValueError, match=r"target must be a list of 12 entries, .*, got 11\. Give"):
        AdaptiveStrengthTransform("trivial")(plain._replace(target=each[:11]))


def test_it_is_a_module_without_state() -> None:
    given = samples()
    for policy in ("trivial", K.RandomAffine(30.0, p=1.0)):
        transform = AdaptiveStrengthTransform(policy, seed=2)
        transform(given.input, 0.5)
        assert isinstance(transform, nn.Module)
        assert not transform.state_dict()
        assert not [*transform.parameters(), *transform.buffers(), *transform.children()]
        transform.load_state_dict({})
        expected = copy.deepcopy(transform)(given.input, 0.5)
        moved = transform.to(torch.float64).eval().half().requires_grad_(False)
        assert moved is transform
        assert torch.equal(transform(given.input, 0.5), expected)
    seen: list[nn.Module] = []
    whole = nn.Sequential(AdaptiveStrengthTransform("trivial", seed=2), nn.Flatten())
    whole.apply(seen.append)
    assert seen == [*whole, whole]
    assert repr(whole[0]) in repr(whole).replace("\n", "")
    assert repr(whole[0]) == "AdaptiveStrengthTransform(Trivial(num_magnitude_bins=31), seed=2)"
    with pytest.raises(
        TypeError, match=r"params must be the Params that sample returned, got None"
    ):
        whole[0].apply(given.input)


class Inputs(nn.Module):
    """Of a Sample what a model takes."""

    def forward(self, batch: Sample) -> Tensor:
        images: Tensor = batch.input
        return images


def test_in_sequential_and_compose_a_sample_goes_in_and_out() -> None:
    given = samples(dtype=torch.float32)
    strong = AdaptiveStrengthTransform("rand", seed=8)
    expected = apart(strong, given)
    assert_same(nn.Sequential(strong)(given), expected)
    twice = nn.Sequential(strong, AdaptiveStrengthTransform("erasing", seed=8)).eval()
    second = AdaptiveStrengthTransform("erasing", seed=8)
    assert_same(twice(given), apart(second, expected))
    logits = nn.Sequential(strong, Inputs(), nn.Flatten(), nn.Linear(1560, 2))(given)
    assert logits.shape == (12, 2)
    normalise = v2.Normalize([0.5] * 3, [0.25] * 3)
    out = v2.Compose([strong, normalise])(given)
    assert_same(out, expected._replace(input=normalise(expected.input)))


@pytest.mark.slow
def test_spawned_workers_take_it() -> None:
    strong = AdaptiveStrengthTransform("trivial", seed=4)
    strong(batch(), 0.5)  # has drawn by its own generator
    rows = [(image, i) for i, image in enumerate(batch(6))]
    data = WeightedAugmentedDataset(rows, strong=strong, final=strong_again)
    loader = DataLoader(data, batch_size=3, num_workers=1, multiprocessing_context="spawn")
    out = torch.cat([part.input for part in loader])
    assert_same(out, torch.stack([data[i].input for i in range(6)]))


def strong_again(image: Tensor) -> Tensor:
    return image.flip(-1)


def test_what_would_stay_in_place_is_refused_and_named() -> None:
    strong, given = AdaptiveStrengthTransform("rand"), samples()
    depth = torch.rand(12, 1, 20, 26)
    wrong: list[tuple[Any, str]] = [
        (given._replace(target=depth), "target"),
        (given._replace(extra={"depth": depth}), "extra.depth"),
        (given._replace(extra=[given.target, depth]), "extra.1"),
        (given._replace(extra=[{"boxes": torch.ones(2, 4)}] * 12), "extra.0.boxes"),
        (given._replace(input=(given.input, depth)), "input.1"),
    ]
    for batch_, name in wrong:
        with pytest.raises(
            ValueError, match=rf"^{name} must be a tv_tensors\.\w+ to fol.*_tensors"
        ):
            strong(batch_)
        with pytest.raises(ValueError, match=rf"^{name} must be"):
            strong(batch_._replace(strength=torch.zeros(12)))  # whatever is drawn
        hint = name.replace("extra.0.", "")
        kept = AdaptiveStrengthTransform("rand", untouched=(hint,))(batch_)
        assert_same(kept.target, batch_.target)
        assert_same(kept.extra, batch_.extra)
        AdaptiveStrengthTransform("erasing")(batch_)
    with pytest.raises(ValueError, match=r"^images\.2 must be a tv_tensors\.Mask to follow"):
        strong((given.input, given.target, depth), 0.5)


def test_mask_fill() -> None:
    masks = tv_tensors.Mask(torch.randint(1, 9, (12, 20, 26)))
    given = samples(target=masks, extra={"seen": tv_tensors.Mask(masks > 0)})
    usual = AdaptiveStrengthTransform("rand", magnitude=20)(given)
    fills: tuple[Any, ...] = (255, -100, np.int64(7))
    for fill in fills:
        out = AdaptiveStrengthTransform("rand", magnitude=20, mask_fill=fill)(given)
        outside = usual.target == 0
        assert outside.any()
        assert torch.equal(out.target, usual.target.masked_fill(outside, int(fill)))
        assert torch.equal(out.extra["seen"], ~outside)
    for wrong, error in (("255", TypeError), (True, TypeError), (torch.nan, ValueError)):
        with pytest.raises(error, match=r"mask_fill must be .*, got .*\. Give the loss's ignore_"):
            AdaptiveStrengthTransform("rand", mask_fill=wrong)  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"mask_fill must be a value of torch.uint8 masks, got -100"
    ):
        AdaptiveStrengthTransform("rand", mask_fill=-100)(
            given._replace(target=tv_tensors.Mask(masks.byte()))
        )


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("name", [*POLICIES, "kornia"])
def test_a_gpu_is_not_waited_for(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triton's kernels, which are not pretended, wait for nothing either; see test_fused."""
    monkeypatch.setattr(kernels, "usable", lambda: False)
    affine = K.RandomAffine(30.0, p=1.0), K.RandomHorizontalFlip()
    policy = affine if name == "kornia" else (name,)
    strong = AdaptiveStrengthTransform(*policy, mean=(0.4,), std=(0.3,))
    images, strength = batch(8, dtype=dtype), torch.linspace(0, 1, 8)
    label, index = torch.arange(8), torch.arange(8)
    masked = name not in ("kornia", "augmix")
    with pretend_cuda() as gpu:
        given = Sample(images, label, index, torch.ones(8), strength).to("cuda")
        if masked:
            given = given._replace(extra=tv_tensors.Mask(torch.ones(8, 20, 26).to("cuda")))
        strong(given)  # what depends on the size alone is made once
        gpu.clear()
        out = strong(given)
        assert not gpu.waits, gpu.report()
        assert out.input.is_cuda
        assert out.input.cpu().isfinite().all()


def test_boxes_on_a_gpu_follow_as_on_the_cpu() -> None:
    strong = AdaptiveStrengthTransform("rand", seed=3)
    images, strength, keys = batch(6), torch.ones(6), keys_of(6)
    corners = torch.tensor([[2.0, 3.0, 9.5, 8.0]])

    def boxes(device: str) -> list[tv_tensors.BoundingBoxes]:
        there = corners.to(device)
        form = tv_tensors.BoundingBoxFormat.XYXY
        made = tv_tensors.BoundingBoxes(there, format=form, canvas_size=(20, 26))
        return [made] * 6

    expected = strong((images, boxes("cpu")), strength, keys=keys)[1]
    with pretend_cuda() as gpu:
        moved = strong.sample(images.shape, strength, keys=keys)
        given = boxes("cuda")
        gpu.clear()
        found = follow(given, moved)
        assert not gpu.waits, gpu.report()
        here = [box.as_subclass(Tensor).cpu() for box in found]
    assert not all(torch.equal(box, corners) for box in here)
    for box, other in zip(here, expected, strict=True):
        assert torch.equal(box, other.as_subclass(Tensor))


def test_float_images_on_a_gpu_raise_behind() -> None:
    strong = AdaptiveStrengthTransform("cutout")
    with pretend_cuda():
        images = batch(2, dtype=torch.float32).to("cuda")
        strong(images + 2, 1.0)
        with pytest.raises(ValueError, match=r"in \[0, 1\].*of an earlier batch"):
            strong(images, 1.0)
        strong(images, 1.0)
        strong.require_arrived()
        pickle.loads(pickle.dumps(strong))


@pytest.mark.parametrize("name", list(POLICIES))
@pytest.mark.parametrize("side", [32, 200])
def test_pixels_do_not_depend_on_the_number_of_threads(name: str, side: int) -> None:
    count, strong = torch.get_num_threads(), AdaptiveStrengthTransform(name, seed=3)
    rows = 400 if side == 32 else 20  # more than one thread gets at a time
    generator = torch.Generator().manual_seed(0)
    whole = torch.randint(256, (rows, 3, side, side), dtype=torch.uint8, generator=generator)
    keys, masks = torch.arange(rows)[:, None], tv_tensors.Mask(whole[:, 0])
    for images in (whole, whole / 255, whole.contiguous(memory_format=torch.channels_last)):
        given = images if name == "augmix" else (images, masks)
        made = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            made.append(strong(given, 0.9, keys=keys))
            assert torch.get_num_threads() == threads
        torch.set_num_threads(count)
        for other in made[1:]:
            for mine, theirs in zip(tree_leaves(made[0]), tree_leaves(other), strict=True):
                assert torch.equal(mine, theirs)
