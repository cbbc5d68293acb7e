"""Mixing: blending and pasting rows, and what it refuses."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given

from augloader import CutMix, Sample
from augloader.augment import Mixing
from augloader.augment.blend import beside, described
from tests.augment.mixed import C, assert_worded, batches, blended, rows, seeds
from tests.pretend_cuda import Gpu

pytestmark = pytest.mark.usefixtures("one_thread")


def test_gradients_flow_to_both_rows() -> None:
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    mixing = Mixing(torch.tensor([1, 0]), torch.tensor([0.75, 0.75]))
    (gradient,) = torch.autograd.grad(mixing.blend(x)[0].sum(), x)
    assert gradient.tolist() == [[0.75] * 3, [0.25] * 3]
    assert torch.autograd.gradcheck(mixing.blend, x)


@given(batches(), seeds)
def test_rows_are_blended_with_their_partners(batch: Sample, seed: int) -> None:
    random, b = torch.Generator().manual_seed(seed), len(batch.weight)
    lam = torch.rand(b, generator=random) * (torch.rand(b, generator=random) < 0.7)
    lam[::3] = 1
    mixing = Mixing(torch.randint(b, (b,), generator=random), lam)
    assert torch.equal(mixing.mixed, lam < 1)
    for x in (batch.weight, batch.input, batch.input.double()[:, :, None]):
        out = mixing.blend(x)
        assert (out.shape, out.dtype) == (x.shape, x.dtype)
        assert torch.equal(out[::3], x[::3])
        torch.testing.assert_close(out.double(), blended(mixing, x), rtol=1e-6, atol=1e-6)


def test_rows_with_lam_1_are_kept_whatever_they_are() -> None:
    x = torch.tensor([[torch.inf, 1.0], [torch.nan, 2.0], [3.0, 4.0], [5.0, 6.0]])
    out = Mixing(torch.tensor([1, 0, 3, 2]), torch.tensor([1.0, 1.0, 0.5, 1.0])).blend(x)
    expected = torch.cat([x[:2], torch.tensor([[4.0, 5.0]]), x[3:]])
    torch.testing.assert_close(out, expected, rtol=0, atol=0, equal_nan=True)


DTYPES = (torch.uint8, torch.bool, torch.int16, torch.float32, torch.bfloat16, torch.complex64)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_boxes_are_pasted_from_the_partner(dtype: torch.dtype) -> None:
    box = torch.tensor([[1, 0, 4, 5], [0, 0, 0, 0], [2, 2, 6, 3]])
    lam = 1 - torch.tensor([15, 0, 4]) / 30
    mixing = Mixing(torch.tensor([1, 2, 0]), lam, box)
    for shape in ((3, 6, 5), (3, 2, 4, 6, 5)):
        x = torch.randint(0, 256, shape, dtype=torch.uint8).to(dtype)
        before, expected = x.clone(), x.clone()
        expected[0, ..., 1:4, :] = x[1, ..., 1:4, :]
        expected[2, ..., 2:6, 2:3] = x[0, ..., 2:6, 2:3]
        assert torch.equal(mixing.paste(x), expected)
        assert torch.equal(x, before)
        if dtype == torch.float32:
            tracked = x.requires_grad_()
            (gradient,) = torch.autograd.grad(mixing.paste(tracked).sum(), tracked)
            assert gradient.sum() == x.numel()
            assert torch.equal(mixing.paste(tracked), expected)


def test_where_nothing_is_mixed_it_is_the_tensor_itself() -> None:
    x = torch.rand(2, 6, 5)
    mixing = mixing_of(lam=(1.0, 1.0), box=torch.zeros(2, 4, dtype=torch.int64))
    assert mixing.blend(x) is x
    assert mixing.paste(x) is x


def test_numbers_of_rows_have_arrived_where_they_go_to_the_cpu(pretended: Gpu) -> None:
    lam = torch.tensor([0.5, 1.0])
    assert beside(lam.cuda(), torch.zeros(2, 3)).flatten().equal(lam)
    with pytest.raises(ValueError, match=r"lam must be on the CPU, got cuda:0. Give lam.cpu\(\)"):
        Mixing(torch.tensor([1, 0]), lam.cuda())


def test_helpers() -> None:
    column = beside(torch.tensor([0.5, 1.0]), torch.zeros(2, 3, 4, dtype=torch.float64))
    assert (column.shape, column.dtype) == ((2, 1, 1), torch.float64)
    assert described(torch.zeros(2, 3)) == "(2, 3) torch.float32"
    assert described([1]) == "list"


def mixing_of(partner: Any = (1, 0), lam: Any = (0.5, 0.5), **options: Any) -> Mixing:
    return Mixing(torch.tensor(partner), torch.tensor(lam), **options)


def pasted(box: tuple[int, int, int, int], lam: float | None = None) -> Sample:
    """CutMix of two images of 6 x 5 pixels; lam is the box's own if not given."""
    if lam is None:
        lam = 1 - abs((box[2] - box[0]) * (box[3] - box[1])) / 30
    mixing = mixing_of(lam=(lam, lam), box=torch.tensor([box, box]))
    return CutMix(C).apply(rows(2), mixing)


BAD: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "lam above": (lambda: mixing_of(lam=(0.5, 1.5)), ValueError, r"lam must be in \[0, 1\], got 1"),
    "lam below": (lambda: mixing_of(lam=(-0.5, 0.5)), ValueError, "lam must be .* indices 0"),
    "lam nan": (lambda: mixing_of(lam=(0.5, float("nan"))), ValueError, "lam must be .* indices 1"),
    "lam double": (
        lambda: Mixing(torch.tensor([1, 0]), torch.zeros(2).double()),
        TypeError,
        "lam must be a torch.float32 tensor, got .* torch.float64",
    ),
    "partner float": (
        lambda: mixing_of(partner=(1.0, 0.0)),
        TypeError,
        "partner must be a torch.int64 tensor",
    ),
    "partner above": (lambda: mixing_of(partner=(1, 2)), ValueError, r"partner must be in \[0, 2"),
    "partner below": (lambda: mixing_of(partner=(-1, 0)), ValueError, "partner must be .* 0"),
    "lengths": (lambda: mixing_of(partner=(1, 0, 2)), ValueError, r"shapes \(3,\) and \(2,\)"),
    "other rows": (lambda: mixing_of().blend(torch.rand(3)), ValueError, "must have 2 rows"),
    "no box": (lambda: CutMix(C).apply(rows(2), mixing_of()), ValueError, "box must"),
    "box shape": (lambda: mixing_of(box=torch.zeros(2, 3).long()), ValueError, "box must"),
    "box dtype": (lambda: mixing_of(box=torch.zeros(2, 4)), TypeError, "box must"),
    "box outside": (
        lambda: pasted((2, 1, 7, 4)),
        ValueError,
        r"box must lie in images of 6 x 5 pixels and .* got 2 others \(first indices 0, 1\)",
    ),
    "box above": (lambda: pasted((-1, 0, 2, 2)), ValueError, "box must lie in images of 6 x 5"),
    "box right of": (lambda: pasted((0, 3, 2, 6)), ValueError, "box must lie in images of 6 x 5"),
    "box reversed": (lambda: pasted((5, 1, 2, 4)), ValueError, "box must lie in images of 6 x 5"),
    "box reversed twice": (lambda: pasted((5, 4, 2, 1)), ValueError, "box must lie in images"),
    "box of another lam": (
        lambda: pasted((1, 1, 4, 4), 0.75),
        ValueError,
        r"box must .* hold .*1 - lam of them, got 2 others",
    ),
    "box to paste": (
        lambda: mixing_of(box=torch.tensor([[0, 0, 9, 9]] * 2)).paste(torch.rand(2, 3, 6, 5)),
        ValueError,
        "box must lie in images of 6 x 5",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name: str) -> None:
    call, error, words = BAD[name]
    with pytest.raises(error, match=words) as raised:
        call()
    assert_worded(raised)
