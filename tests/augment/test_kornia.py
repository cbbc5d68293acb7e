from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Callable
from typing import Any

import kornia.augmentation as K
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as TF
from torchvision.tv_tensors import Mask

from augloader import Sample
from augloader.augment.kornia import _SUPPORTED, KorniaOperations, KorniaParams
from augloader.augment.transform import AdaptiveStrengthTransform

pytestmark = pytest.mark.usefixtures("one_thread")
Operation = K.AugmentationBase2D
ELASTIC = {"kernel_size": (7, 7), "sigma": (3.0, 3.0), "alpha": (5.0, 5.0)}

# name -> (operation from its probability, whether it has a magnitude)
CASES: dict[str, tuple[Callable[[float], Operation], bool]] = {
    "affine": (lambda p: K.RandomAffine(30.0, (0.2, 0.2), (0.6, 1.4), 10.0, p=p), True),
    "affine-angle": (lambda p: K.RandomAffine(30.0, p=p), True),
    "affine-anisotropic": (lambda p: K.RandomAffine(0.0, scale=(0.5, 1, 1, 2.0), p=p), True),
    "rotation": (lambda p: K.RandomRotation(30.0, p=p), True),
    "shear": (lambda p: K.RandomShear(20.0, p=p), True),
    "translate": (lambda p: K.RandomTranslate((0.1, 0.3), (0.1, 0.3), p=p), True),
    "translate-x": (lambda p: K.RandomTranslate((0.1, 0.3), p=p), True),
    "perspective": (lambda p: K.RandomPerspective(0.5, p=p), True),
    "spline": (lambda p: K.RandomThinPlateSpline(p=p), True),
    "elastic": (lambda p: K.RandomElasticTransform(p=p, **ELASTIC), True),
    "jitter": (lambda p: K.ColorJitter(0.4, 0.4, 0.4, 0.1, p=p), True),
    "jiggle": (lambda p: K.ColorJiggle(0.4, 0.4, 0.4, 0.1, p=p), True),
    "jiggle-brightness": (lambda p: K.ColorJiggle(0.4, p=p), True),
    "brightness": (lambda p: K.RandomBrightness((0.4, 1.6), p=p), True),
    "contrast": (lambda p: K.RandomContrast((0.4, 1.6), p=p), True),
    "saturation": (lambda p: K.RandomSaturation((0.4, 1.6), p=p), True),
    "hue": (lambda p: K.RandomHue((-0.4, 0.4), p=p), True),
    "gamma": (lambda p: K.RandomGamma((0.4, 2.0), (0.6, 1.4), p=p), True),
    "sharpness": (lambda p: K.RandomSharpness(0.5, p=p), True),
    "sharpness-up": (lambda p: K.RandomSharpness((1.0, 3.0), p=p), True),
    "posterize": (lambda p: K.RandomPosterize(3, p=p), True),
    "solarize": (lambda p: K.RandomSolarize(p=p), True),
    "rgb-shift": (lambda p: K.RandomRGBShift(p=p), True),
    "noise": (lambda p: K.RandomGaussianNoise(0.1, 0.2, p=p), True),
    "blur": (lambda p: K.RandomGaussianBlur((5, 5), (1.0, 2.0), p=p), True),
    "erasing": (lambda p: K.RandomErasing((0.1, 0.4), value=0.5, p=p), True),
    "linear": (lambda p: K.RandomLinearIllumination(p=p), True),
    "corner": (lambda p: K.RandomLinearCornerIllumination(p=p), True),
    "gaussian": (lambda p: K.RandomGaussianIllumination(p=p), True),
    "plasma-brightness": (lambda p: K.RandomPlasmaBrightness(p=p), True),
    "plasma-contrast": (lambda p: K.RandomPlasmaContrast(p=p), True),
    "plasma-shadow": (lambda p: K.RandomPlasmaShadow(p=p), True),
    "snow": (lambda p: K.RandomSnow((0.4, 0.6), (1.0, 3.0), p=p), True),
    "flip": (lambda p: K.RandomHorizontalFlip(p=p), False),
    "flip-vertical": (lambda p: K.RandomVerticalFlip(p=p), False),
    "rotation90": (lambda p: K.RandomRotation90((1, 3), p=p), False),
    "fisheye": (
        lambda p: K.RandomFisheye(*torch.tensor([[-0.3, 0.3], [-0.3, 0.3], [0.9, 1.0]]), p=p),
        False,
    ),
    "invert": (lambda p: K.RandomInvert(p=p), False),
    "equalize": (lambda p: K.RandomEqualize(p=p), False),
    "clahe": (lambda p: K.RandomClahe(p=p), False),
    "auto-contrast": (lambda p: K.RandomAutoContrast(p=p), False),
    "grayscale": (lambda p: K.RandomGrayscale(p=p), False),
    "shuffle": (lambda p: K.RandomChannelShuffle(p=p), False),
    "box-blur": (lambda p: K.RandomBoxBlur(p=p), False),
    "median-blur": (lambda p: K.RandomMedianBlur(p=p), False),
    "jpeg": (lambda p: K.RandomJPEG(10.0, p=p), False),
    "planckian": (lambda p: K.RandomPlanckianJitter(p=p), False),
    "rain": (lambda p: K.RandomRain((50, 90), (3, 5), (-2, 2), p=p), False),
    "salt-pepper": (lambda p: K.RandomSaltAndPepperNoise(p=p), False),
}
each = pytest.mark.parametrize("name", CASES)
MAGNITUDE = [name for name, (_, magnitude) in CASES.items() if magnitude]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def make(name: str, p: float = 1.0, seed: int = 0) -> AdaptiveStrengthTransform:
    return AdaptiveStrengthTransform(CASES[name][0](p), seed=seed)


def drawn(
    transform: AdaptiveStrengthTransform,
    shape: tuple[int, ...],
    strength: Tensor | float,
    generator: torch.Generator | None = None,
) -> KorniaParams:
    params = transform.sample(shape, strength, generator)
    assert isinstance(params, KorniaParams)
    return params


def batch(rows: int = 6, height: int = 16, width: int = 20, seed: int = 1) -> Tensor:
    """Smooth images, so that small movements make small changes, with black and white pixels."""
    noise = torch.randn(rows, 3, 4, 5, generator=torch.Generator().manual_seed(seed))
    smooth = nn.functional.interpolate(noise, (height, width), mode="bicubic")
    return (0.5 + 0.4 * smooth).clamp(0, 1)


def change(out: Tensor, images: Tensor) -> float:
    return (out.double() - images.double()).abs().mean().item()


def test_every_supported_class_is_tested() -> None:
    assert {type(build(1.0)) for build, _ in CASES.values()} == set(_SUPPORTED)
    for build, magnitude in CASES.values():
        assert bool(_SUPPORTED[type(build(1.0))]) == magnitude


@each
def test_neutral_parameters_are_drawn_by_kornia(name: str) -> None:
    operation = CASES[name][0](1.0)
    drawn = operation.forward_parameters((3, 3, 16, 20))
    assert set(_SUPPORTED[type(operation)]) <= set(drawn)


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
@pytest.mark.parametrize("device", DEVICES)
def test_shape_dtype_device_and_input(name: str, dtype: torch.dtype, device: str) -> None:
    images = 0.1 + 0.8 * batch()  # leaves something to do for RandomAutoContrast
    images = (images * (255 if dtype == torch.uint8 else 1)).to(device, dtype)
    before = images.clone()
    strength = torch.tensor([0.0, 0.3, 1.0, 0.6, 1.0, 0.0])
    out = make(name)(images, strength)
    assert (out.shape, out.dtype, out.device) == (images.shape, images.dtype, images.device)
    assert torch.equal(images, before)
    assert torch.equal(out[[0, 5]], images[[0, 5]])
    assert not torch.equal(out[[2, 4]], images[[2, 4]])
    assert out.data_ptr() != images.data_ptr()


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_strength_zero_is_the_identity(name: str, dtype: torch.dtype) -> None:
    images = (batch() * (255 if dtype == torch.uint8 else 1)).to(dtype)
    out = make(name)(images, 0.0)
    assert torch.equal(out, images)
    assert out.data_ptr() != images.data_ptr()


@each
def test_strength_one_is_the_operation(name: str) -> None:
    images = batch()
    torch.manual_seed(3)
    generator = torch.Generator()
    generator.set_state(torch.get_rng_state())
    operation = CASES[name][0](1.0)
    expected = operation(images)
    assert torch.equal(make(name)(images, torch.ones(6), generator), expected)


@pytest.mark.parametrize("name", ["affine", "jitter", "noise", "flip"])
def test_kornia_probability_still_decides(name: str) -> None:
    images = batch(64)
    generator = torch.Generator()
    torch.manual_seed(3)
    generator.set_state(torch.get_rng_state())
    operation = CASES[name][0](0.5)
    parameters = operation.forward_parameters(tuple(images.shape))
    out = make(name, p=0.5)(images, 1.0, generator)
    skipped = parameters["batch_prob"] == 0
    assert 0.2 < skipped.float().mean() < 0.8
    assert torch.equal(out[skipped], images[skipped])
    assert torch.equal(out, operation(images, params=parameters))


@pytest.mark.parametrize("name", MAGNITUDE)
def test_change_grows_with_strength_from_zero(name: str) -> None:
    images = batch(24)
    transform = make(name)
    changes = []
    for strength in (1e-3, 0.25, 1.0):
        out = transform(images, strength, torch.Generator().manual_seed(0))
        assert out.isfinite().all()
        changes.append(change(out, images))
    assert changes[0] < 0.02 * changes[2]
    assert changes[0] <= changes[1] < changes[2]


@pytest.mark.parametrize("name", MAGNITUDE)
def test_tiny_strength_is_finite_and_almost_the_identity(name: str) -> None:
    images = batch()
    for strength in (1e-7, 1e-38):
        torch.testing.assert_close(make(name)(images, strength), images, rtol=0, atol=1e-4)


def test_parameters_move_linearly() -> None:
    operation = K.RandomAffine(30.0, (0.2, 0.2), (0.6, 1.4), 10.0, p=1.0)
    transform = AdaptiveStrengthTransform(operation, K.RandomPosterize(3, p=1.0))
    strength = torch.tensor([0.25, 0.0, 1.0, 0.5])

    def draw(values: Tensor | float) -> list[tuple[Tensor, dict[str, Tensor]]]:
        generator = torch.Generator().manual_seed(0)
        return list(drawn(transform, (4, 3, 8, 8), values, generator).steps)

    (rows, affine), (_, posterize) = draw(strength)
    (_, full), (_, full_posterize) = draw(1.0)
    kept = strength[rows]
    assert rows.tolist() == [0, 2, 3]
    torch.testing.assert_close(affine["angle"], kept * full["angle"][rows])
    torch.testing.assert_close(affine["scale"], 1 + kept[:, None] * (full["scale"][rows] - 1))
    torch.testing.assert_close(affine["center"], full["center"][rows])
    assert posterize["bits_factor"].dtype == torch.int32
    expected = (8 + kept * (full_posterize["bits_factor"][rows] - 8)).round().int()
    assert torch.equal(posterize["bits_factor"], expected)


def test_white_pixels_are_not_solarized_at_small_strength() -> None:
    transform = AdaptiveStrengthTransform(K.RandomSolarize(p=1.0))
    images = torch.ones(8, 3, 4, 4)
    assert transform(images, 1e-3).min() > 0.99


@each
def test_rows_are_independent(name: str) -> None:
    images = batch()
    transform = make(name)
    strength = torch.tensor([0.9, 0.4, 0.7, 1.0, 0.2, 0.55])

    def run(values: Tensor) -> Tensor:
        out: Tensor = transform(images, values, torch.Generator().manual_seed(5))
        return out

    # Bit for bit, except where torch's batched convolution or matrix product rounds differently
    # for another number of rows.
    tolerance = 1e-5 if name in ("elastic", "jpeg") else 0.0
    expected = run(strength)
    for other in (0.0, 0.3, 1.0):
        changed = strength.clone()
        changed[[1, 4]] = other
        kept = [0, 2, 3, 5]
        torch.testing.assert_close(run(changed)[kept], expected[kept], rtol=0, atol=tolerance)
    for row in range(6):
        alone = torch.zeros(6)
        alone[row] = strength[row]
        torch.testing.assert_close(run(alone)[row], expected[row], rtol=0, atol=tolerance)


ALL_MAGNITUDES = AdaptiveStrengthTransform(
    K.RandomAffine(30.0, (0.1, 0.1), p=0.7),
    K.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
    K.RandomHorizontalFlip(p=0.5),
    K.RandomGaussianNoise(p=0.5),
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 3), st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4), st.data())
def test_other_strengths_do_not_matter(row: int, values: list[float], data: st.DataObject) -> None:
    images = batch(4)
    strength = torch.tensor(values)
    others = torch.tensor(data.draw(st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4)))
    others[row] = strength[row]
    first = ALL_MAGNITUDES(images, strength, torch.Generator().manual_seed(9))
    second = ALL_MAGNITUDES(images, others, torch.Generator().manual_seed(9))
    # Not bit for bit: Kornia skips a colour step when the whole batch's factor rounds to neutral.
    torch.testing.assert_close(first[row], second[row], rtol=0, atol=1e-5)
    if strength[row] == 0:
        assert torch.equal(first[row], images[row])


@each
def test_replaying_parameters_gives_the_same_pixels(name: str) -> None:
    images = batch()
    transform = make(name)
    params = transform.sample(images.shape, torch.linspace(0, 1, 6))
    first = transform.apply(images, params)
    transform(images, 1.0)
    assert torch.equal(transform.apply(images, params), first)
    assert torch.equal(transform.apply(images, pickle.loads(pickle.dumps(params))), first)


@each
def test_seeds(name: str) -> None:
    images = batch(16)
    strength = torch.full((16,), 0.8)
    one, two, other = make(name), make(name), make(name, seed=1)
    first, second = one(images, strength), one(images, strength)
    assert torch.equal(two(images, strength), first)
    assert torch.equal(two(images, strength), second)
    assert not torch.equal(first, second)
    assert not torch.equal(other(images, strength), first)


def test_explicit_generator_leaves_the_own_one() -> None:
    images = batch()
    one, two = make("noise"), make("noise")
    generator = torch.Generator().manual_seed(0)
    first = one(images, 1.0, generator)
    assert not torch.equal(one(images, 1.0, generator), first)
    assert torch.equal(one(images, 1.0, generator.manual_seed(0)), first)
    assert torch.equal(one(images, 1.0), two(images, 1.0))


@each
def test_global_random_state_is_not_changed(name: str) -> None:
    state = (torch.get_rng_state(), repr(np.random.get_state()), random.getstate())  # noqa: NPY002
    transform = make(name, p=0.7)
    transform.apply(batch(), transform.sample((6, 3, 16, 20), 0.5))
    transform(batch(), 0.5, torch.Generator())
    assert torch.equal(torch.get_rng_state(), state[0])
    assert repr(np.random.get_state()) == state[1]  # noqa: NPY002
    assert random.getstate() == state[2]


def test_result_does_not_depend_on_global_random_state() -> None:
    results = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        results.append(make("jitter", p=0.7)(batch(), 0.5))
    assert torch.equal(*results)


@pytest.mark.parametrize("strength", [0.1, 0.5, 0.9])
def test_operation_without_magnitude_is_gated(strength: float) -> None:
    transform = AdaptiveStrengthTransform(K.RandomInvert(p=1.0), seed=0)
    rows, _ = drawn(transform, (20_000, 3, 2, 2), strength).steps[0]
    assert len(rows) / 20_000 == pytest.approx(strength, abs=0.015)


def test_gates_multiply() -> None:
    transform = AdaptiveStrengthTransform(K.RandomInvert(p=0.5), seed=0)
    rows, _ = drawn(transform, (20_000, 3, 2, 2), 0.5).steps[0]
    assert len(rows) / 20_000 == pytest.approx(0.25, abs=0.015)


@each
def test_single_image(name: str) -> None:
    image = batch()[0]
    out = make(name)(image, 0.9)
    assert out.shape == image.shape
    assert torch.equal(out, make(name)(image[None], torch.tensor([0.9]))[0])
    assert torch.equal(out, make(name)(image, torch.tensor(0.9)))


def test_single_permuted_image() -> None:
    image = batch()[0].permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert torch.equal(make("affine")(image, 0.9), make("affine")(image.contiguous(), 0.9))


@each
@pytest.mark.parametrize("rows", [0, 1, 4])
def test_batch_sizes(name: str, rows: int) -> None:
    # With 4 rows ColorJitter's order, shared by the batch, looks like a parameter of each row.
    images = batch(rows)
    strength = torch.tensor([1.0, 0.0, 0.5, 1.0])[:rows]
    out = make(name)(images, strength)
    assert out.shape == images.shape
    if rows == 4:
        assert torch.equal(out[1], images[1])
        assert not torch.equal(out[[0, 3]], images[[0, 3]])


@pytest.mark.parametrize("name", ["jitter", "jiggle"])
def test_order_of_four_colour_steps_is_kept(name: str) -> None:
    images = batch(4)
    torch.manual_seed(2)
    generator = torch.Generator()
    generator.set_state(torch.get_rng_state())
    expected = CASES[name][0](1.0)(images)
    out = make(name)(images, torch.tensor([1.0, 0.0, 1.0, 0.0]), generator)
    assert torch.equal(out[::2], expected[::2])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@each
def test_other_floating_types(name: str, dtype: torch.dtype) -> None:
    images = batch().to(dtype)
    out = make(name)(images, 0.7)
    assert out.dtype == dtype
    assert out.isfinite().all()
    if dtype != torch.float64:
        assert torch.equal(out, make(name)(images.float(), 0.7).to(dtype))


def test_uint8_is_rounded_once() -> None:
    images = (batch() * 255).to(torch.uint8)
    operations = (K.RandomAffine(30.0, p=1.0), K.ColorJitter(0.4, p=1.0), K.RandomInvert(p=0.5))
    strength = torch.linspace(0, 1, 6)
    transform = AdaptiveStrengthTransform(*operations)
    params = transform.sample(images.shape, strength)
    expected = transform.apply(images.float() / 255, params).mul(255).round().to(torch.uint8)
    assert torch.equal(transform.apply(images, params), expected)


def test_operations_are_applied_in_order() -> None:
    images = batch()
    first, second = K.RandomAffine(30.0, p=1.0), K.RandomSharpness(0.5, p=1.0)
    both = drawn(AdaptiveStrengthTransform(first, second), tuple(images.shape), 1.0)
    expected = second(first(images, params=both.steps[0][1]), params=both.steps[1][1])
    assert torch.equal(AdaptiveStrengthTransform(first, second)(images, 1.0), expected)


def test_strength_of_any_floating_type_and_with_gradient() -> None:
    images = batch(2)
    expected = make("affine")(images, torch.tensor([0.25, 0.5]))
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert torch.equal(make("affine")(images, torch.tensor([0.25, 0.5]).to(dtype)), expected)
    strength = torch.tensor([0.25, 0.5], requires_grad=True)
    out = make("affine")(images, strength)
    assert torch.equal(out, expected)
    assert not out.requires_grad
    assert torch.equal(make("affine")(images, 1), make("affine")(images, torch.ones(2)))


def test_gradient_reaches_the_images() -> None:
    images = batch(2).requires_grad_()
    make("affine")(images, torch.tensor([0.0, 1.0])).sum().backward()
    assert images.grad is not None
    assert torch.equal(images.grad[0], torch.ones_like(images.grad[0]))
    assert images.grad[1].any()


def test_operations_are_copied() -> None:
    operation = K.RandomAffine(30.0, p=1.0)
    transform = AdaptiveStrengthTransform(operation)
    transform(batch(), 1.0)
    assert operation._params == {}


def test_subclass_is_supported() -> None:
    class Turn(K.RandomRotation):  # type: ignore[misc]
        pass

    images = batch()
    plain = AdaptiveStrengthTransform(K.RandomRotation(30.0, p=1.0))(images, 0.5)
    assert torch.equal(AdaptiveStrengthTransform(Turn(30.0, p=1.0))(images, 0.5), plain)


@each
def test_pickle_and_deepcopy_continue(name: str) -> None:
    images = batch(16)
    transform = make(name, p=0.7)
    transform(images, 0.5)
    pickled, copied = pickle.loads(pickle.dumps(transform)), copy.deepcopy(transform)
    expected = transform(images, 0.5)
    assert torch.equal(pickled(images, 0.5), expected)
    assert torch.equal(copied(images, 0.5), expected)


def test_repr() -> None:
    transform = AdaptiveStrengthTransform(K.RandomInvert(p=1.0), K.RandomHue((0.0, 0.1)), seed=3)
    text = repr(transform)
    assert text.startswith("AdaptiveStrengthTransform(RandomInvert(")
    assert "RandomHue(" in text
    assert text.endswith("seed=3)")


class Noisy(Dataset[Tensor]):
    """Zero images plus noise: what comes out is the random numbers."""

    def __init__(self) -> None:
        self.transform = AdaptiveStrengthTransform(K.RandomGaussianNoise(p=1.0), seed=0)
        self.transform(torch.zeros(1, 4, 4), 1.0)  # makes the random state that workers are given

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Tensor:
        noise: Tensor = self.transform(torch.zeros(1, 4, 4), 1.0)
        return noise.flatten()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_data_loader_workers_and_epochs_differ(context: str) -> None:
    def epochs(seed: int, count: int) -> list[Tensor]:
        loader = DataLoader(
            Noisy(),
            batch_size=2,
            num_workers=2,
            multiprocessing_context=context,
            generator=torch.Generator().manual_seed(seed),
        )
        return [row for _ in range(count) for images in loader for row in images]

    rows = torch.stack(epochs(seed=0, count=2))
    assert len(rows) == 16
    assert len(rows.unique(dim=0)) == 16
    if context == "fork":
        assert torch.equal(torch.stack(epochs(seed=0, count=2)), rows)


@pytest.mark.parametrize(
    "operation",
    [
        K.RandomMixUpV2(),
        K.RandomResizedCrop((8, 8)),
        K.RandomCrop((8, 8)),
        K.RandomChannelDropout(),
        K.RandomMotionBlur(3, 35.0, 0.5),
        K.RandomHorizontalFlip3D(),
        K.Normalize(0.5, 0.5),
        nn.Identity(),
        K.RandomAffine,
        "RandomAffine",
    ],
)
def test_unsupported_operation(operation: object) -> None:
    with pytest.raises(TypeError, match=r"operations\[1\] must be a supported Kornia") as error:
        AdaptiveStrengthTransform(K.RandomInvert(), operation)  # type: ignore[arg-type]
    assert f"got {type(operation).__name__}. Use one of ColorJiggle, " in str(error.value)
    assert str(error.value).endswith("RandomVerticalFlip.")


def test_construction_errors() -> None:
    with pytest.raises(ValueError, match=r"operations must be at least one .* got none. Pass"):
        AdaptiveStrengthTransform()
    with pytest.raises(ValueError, match=r"operations\[0\] must draw .* got same_on_batch=True"):
        AdaptiveStrengthTransform(K.RandomErasing(same_on_batch=True))
    with pytest.raises(ValueError, match=r"operations must be at least one .* got none. Pass"):
        AdaptiveStrengthTransform([])
    rule = "Kornia operations must carry their own options, got an unexpected keyword argument"
    options: list[dict[str, Any]] = [
        {"strenght": 0.5},
        {"num_ops": 2},
        {"interpolation": "nearest"},
        {"fill": 0.5},
    ]
    for option in options:
        with pytest.raises(TypeError, match=f"{rule} '{next(iter(option))}'. Pass it to the oper"):
            AdaptiveStrengthTransform(K.RandomInvert(), **option)
    with pytest.raises(TypeError, match=r"operations\[0\] must be a supported Kornia .*, got str"):
        AdaptiveStrengthTransform("trivial", "rand")


def test_a_list_is_its_operations() -> None:
    operations = [K.RandomAffine(30.0, p=1.0), K.RandomInvert(p=0.5)]
    expected = AdaptiveStrengthTransform(*operations)(batch(), 0.7)
    assert torch.equal(AdaptiveStrengthTransform(operations)(batch(), 0.7), expected)
    assert torch.equal(AdaptiveStrengthTransform(tuple(operations))(batch(), 0.7), expected)


def test_keys() -> None:
    image, transform = batch()[0], make("affine", seed=3)
    key = torch.tensor([2, 7, 1])
    expected = transform(image, 0.8, keys=key)
    transform(image, 0.8)
    assert torch.equal(transform(image, 0.8, keys=key), expected)
    assert torch.equal(make("affine", seed=3)(image[None], 0.8, keys=key[None])[0], expected)
    for other in ([2, 7, 0], [2, 8, 1], [1, 7, 1]):
        assert not torch.equal(transform(image, 0.8, keys=torch.tensor(other)), expected)
    assert not torch.equal(make("affine", seed=4)(image, 0.8, keys=key), expected)
    with pytest.raises(ValueError, match=r"keys must be of one image for Kornia operations, got 6"):
        transform(batch(), 0.8, keys=torch.zeros(6, 3, dtype=torch.int64))


def test_targets_need_a_named_policy() -> None:
    with pytest.raises(
        TypeError, match="images must be a single tensor for Kornia operations, got"
    ):
        make("affine")((batch(), torch.zeros(6)), 0.5)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_mean_std_and_dtype(dtype: torch.dtype) -> None:
    images = (batch() * (255 if dtype == torch.uint8 else 1)).to(dtype)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    plain = make("affine")(images, 0.7)
    out = AdaptiveStrengthTransform(CASES["affine"][0](1.0), mean=mean, std=std)(images, 0.7)
    like = TF.normalize(TF.to_dtype(plain, torch.float32, scale=True), list(mean), list(std))
    torch.testing.assert_close(out, like, rtol=0, atol=2e-6)
    half = AdaptiveStrengthTransform(CASES["affine"][0](1.0), dtype=torch.float16)(images, 0.7)
    assert half.dtype == torch.float16
    torch.testing.assert_close(
        half.float(), TF.to_dtype(plain, torch.float32, scale=True), rtol=0, atol=1e-3
    )
    two = AdaptiveStrengthTransform(CASES["affine"][0](1.0), mean=(0.4, 0.5), std=(0.2, 0.3))
    with pytest.raises(
        ValueError, match="mean must be one number or one for each of 3 channels, got"
    ):
        two(images, 0.5)


def test_errors_of_apply() -> None:
    transform = make("affine")
    params = transform.sample((2, 3, 8, 8), 0.5)
    with pytest.raises(
        ValueError, match=r"images must have the shape that params are for, \(2, 3, "
    ):
        transform.apply(torch.zeros(3, 3, 8, 8), params)
    with pytest.raises(
        TypeError, match="params must be the KorniaParams that sample returned, got"
    ):
        transform.apply(
            torch.zeros(2, 3, 8, 8), AdaptiveStrengthTransform("rand").sample((2, 3, 8, 8), 1)
        )
    with pytest.raises(
        ValueError, match=r"images must be in \[0, 1\] where they are floating, got va"
    ):
        transform(torch.full((2, 3, 8, 8), 1.5), 0.5)


def test_operations_by_themselves() -> None:
    operations = KorniaOperations([K.RandomAffine(30.0, p=1.0), K.RandomInvert(p=1.0)])
    assert repr(operations).startswith("RandomAffine(")
    strength = torch.linspace(0, 1, 6)
    generator = torch.Generator().manual_seed(3)
    state = torch.get_rng_state()
    params = operations.draw(generator, strength, (6, 3, 16, 20))
    assert isinstance(params, KorniaParams)
    assert torch.equal(torch.get_rng_state(), state)
    assert params.shape == (6, 3, 16, 20)
    whole = AdaptiveStrengthTransform(K.RandomAffine(30.0, p=1.0), K.RandomInvert(p=1.0))
    expected = whole(batch(), strength, torch.Generator().manual_seed(3))
    assert torch.equal(operations.apply(batch(), params), expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_memory_format_is_kept(dtype: torch.dtype) -> None:
    images, last = batch(), torch.channels_last
    images = (images * 255).to(dtype) if dtype == torch.uint8 else images
    turned = AdaptiveStrengthTransform(K.RandomAffine(30.0, p=1.0), K.RandomInvert(p=0.5))
    params = turned.sample(images.shape, 1.0)
    out = turned.apply(images.contiguous(memory_format=last), params)
    assert out.is_contiguous(memory_format=last)
    torch.testing.assert_close(out, turned.apply(images, params), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_masks_stay_where_no_operation_moves_pixels(name: str) -> None:
    """Kornia's own classes say which are geometry."""
    make, _ = CASES[name]
    strong, images = AdaptiveStrengthTransform(make(1.0)), batch()
    index, ones = torch.arange(len(images)), torch.ones(len(images))
    given_ = Sample(images, Mask(torch.ones(len(images), *images.shape[2:])), index, ones, ones)
    if isinstance(make(1.0), K.IntensityAugmentationBase2D):
        assert strong(given_).target is given_.target
    else:
        with pytest.raises(TypeError, match="must have a named policy for a Mask to follow"):
            strong(given_)


def test_mask_fill_is_of_named_policies() -> None:
    with pytest.raises(TypeError, match="got an unexpected keyword argument 'mask_fill'"):
        AdaptiveStrengthTransform(K.RandomAffine(30.0), mask_fill=255)
