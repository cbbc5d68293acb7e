"""Margins against scikit-learn's machine, and against the optimum they must be of."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.svm import LinearSVC
from torch import Tensor

from augloader import Evidence, Margin, SupportVectors
from augloader.selection.svm import GRID, margins
from tests.reference import random_state

pytestmark = pytest.mark.usefixtures("one_thread")


def digits(kinds: tuple[int, ...], n: int = 150) -> tuple[Tensor, Tensor]:
    images, labels = load_digits(return_X_y=True)
    rows = np.isin(labels, kinds).nonzero()[0][:n]
    return torch.from_numpy(images[rows] / 16).float(), torch.from_numpy(labels[rows]).long()


def blobs(n: int = 120, d: int = 4, classes: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Classes that overlap, so that support vectors lie on both sides."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    means = torch.randn(classes, d, generator=generator)
    return means[labels] + torch.randn(n, d, generator=generator), labels


def decision(x: Tensor, y: Tensor, C: float) -> Any:
    machine = LinearSVC(dual=False, C=C, random_state=0)
    return machine.fit(x.double().numpy(), y.numpy()).decision_function(x.double().numpy())


def optimum(x: Tensor, y: Tensor, C: float) -> Tensor:
    """f(x) = w . x + b of the least (||w||^2 + b^2) / 2 + C sum_i max(0, 1 - y_i f(x_i))^2.

    y is 1 or -1. Newton's method, which is exact once the support vectors are known. LIBLINEAR's
    intercept is one more weight, of a column of ones.
    """
    x = torch.cat([x.double(), torch.ones(len(x), 1)], 1)
    w = torch.zeros(x.shape[1], dtype=torch.float64)
    for _ in range(100):
        active = x[y * (x @ w) < 1]
        target = y[y * (x @ w) < 1].double()
        new = torch.linalg.solve(
            torch.eye(len(w)) + 2 * C * active.T @ active, 2 * C * active.T @ target
        )
        if torch.equal(new, w):
            return x @ w
        w = new
    raise AssertionError("the support vectors have not settled")


# Values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("data", [digits((3, 8)), digits((1, 7)), blobs()])
def test_two_classes_are_one_machine(data: tuple[Tensor, Tensor], C: float) -> None:
    x, y = data
    signs = np.where(y.numpy() == int(y.max()), 1, -1)
    found = margins(x, y, C)
    assert found.dtype == torch.float32
    assert found.shape == y.shape
    np.testing.assert_allclose(found, signs * decision(x, y, C), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("C", [0.01, 1.0])
@pytest.mark.parametrize("data", [digits((0, 3, 8)), digits(tuple(range(10))), blobs(classes=4)])
def test_several_classes_are_a_machine_each_and_the_least_margin_counts(
    data: tuple[Tensor, Tensor], C: float
) -> None:
    x, y = data
    values = decision(x, y, C)
    expected = []
    for label, row in zip(y.tolist(), values, strict=True):
        kinds = y.unique().tolist()
        expected.append(min(f if kind == label else -f for kind, f in zip(kinds, row, strict=True)))
    np.testing.assert_allclose(margins(x, y, C), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("C", [0.01, 0.3])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("classes", [2, 3])
def test_the_machines_are_optimal(C: float, seed: int, classes: int) -> None:
    """Without scikit-learn: the definition, minimised to the end."""
    x, y = blobs(classes=classes, seed=seed)
    signs = [torch.where(y == c, 1.0, -1.0) for c in range(classes)]
    each = torch.stack([s * optimum(x, s, C) for s in signs])
    torch.testing.assert_close(margins(x, y, C).double(), each.min(0).values, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("C", [0.05, 1.0])
@pytest.mark.parametrize("data", [digits((3, 8)), blobs(seed=2)])
def test_the_samples_below_1_are_the_support_vectors(data: tuple[Tensor, Tensor], C: float) -> None:
    """Stationarity: w = sum_i alpha_i y_i x_i, alpha_i = 2 C max(0, 1 - margin_i), and so b."""
    x, y = data
    signs = torch.where(y == y.max(), 1.0, -1.0).double()
    found = margins(x, y, C).double()
    alpha = 2 * C * (1 - found).clamp(min=0)
    inputs = torch.cat([x.double(), torch.ones(len(x), 1)], 1)
    w = torch.linalg.lstsq(inputs, signs * found, driver="gelsd").solution
    torch.testing.assert_close(inputs @ w, signs * found, rtol=1e-5, atol=1e-5)
    gradient = w - (alpha * signs) @ inputs
    # LIBLINEAR ends where the gradient is 1e-4 of what it was at w = 0.
    assert gradient.norm() <= 2e-4 * (2 * C * signs @ inputs).norm()
    support = found < 1
    assert 0 < support.sum() < len(x)
    assert torch.equal(support, alpha > 0)
    # The other samples could be left out.
    again = margins(x[support], y[support], C).double()
    torch.testing.assert_close(again, found[support], rtol=1e-2, atol=1e-2)
    chosen = SupportVectors(C).select(
        Evidence(len(x), y, features=x), len(x), generator=np.random.default_rng(0)
    )
    assert set(chosen.indices.tolist()) == set(support.nonzero().flatten().tolist())


# The choice of C ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data", [digits((3, 8)), digits((1, 8, 9), 200), blobs(60), blobs(90, classes=3, seed=3)]
)
@pytest.mark.parametrize("grid", [GRID, (0.001, 0.03, 1.0), [10.0, 0.001], (0.5,)])
def test_of_several_C_cross_validation_chooses(data: tuple[Tensor, Tensor], grid: Any) -> None:
    x, y = data
    inputs, labels = x.double().numpy(), y.numpy()
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    machine = LinearSVC(dual=False, random_state=0)
    search = GridSearchCV(machine, {"C": list(grid)}, cv=folds).fit(inputs, labels)
    found = margins(x, y, grid)
    torch.testing.assert_close(found, margins(x, y, search.best_params_["C"]))
    accuracies = []
    for C in grid:  # and by hand
        scores = [
            LinearSVC(dual=False, C=C, random_state=0)
            .fit(inputs[fit], labels[fit])
            .score(inputs[test], labels[test])
            for fit, test in folds.split(inputs, labels)
        ]
        accuracies.append(float(np.mean(scores)))
    best = grid[int(np.argmax(np.round(accuracies, 9)))]
    torch.testing.assert_close(found, margins(x, y, best))


def test_the_grid_is_searched_where_no_C_is_given() -> None:
    x, y = blobs(60)
    assert torch.equal(margins(x, y), margins(x, y, GRID))
    assert torch.equal(Margin()(Evidence(60, y, features=x)), margins(x, y, GRID).abs())


def test_a_class_of_two_has_two_folds() -> None:
    x, y = blobs(20)
    y[:18], y[18:] = 0, 1
    assert margins(x, y, (0.1, 1.0)).isfinite().all()


# Laws --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("C", [1.0, (0.1, 1.0)])
@pytest.mark.parametrize(
    ("classes", "names"), [(2, [3, 7]), (2, [0, 200]), (3, [2, 5, 9]), (3, [0, 1, 90])]
)
def test_the_numbers_of_the_classes_do_not_matter(classes: int, names: list[int], C: Any) -> None:
    x, y = blobs(classes=classes)
    renamed = torch.tensor(names)[y]
    assert torch.equal(margins(x, renamed, C), margins(x, y, C))


@pytest.mark.parametrize("classes", [2, 3])
def test_the_order_of_the_classes_does_not_matter(classes: int) -> None:
    """A machine for "c or not" is minus that for "not c or c"."""
    x, y = blobs(classes=classes)
    torch.testing.assert_close(
        margins(x, classes - 1 - y, 1.0), margins(x, y, 1.0), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8])
def test_labels_of_every_integer_dtype(dtype: torch.dtype) -> None:
    x, y = blobs(classes=3)
    assert torch.equal(margins(x, y.to(dtype), 1.0), margins(x, y, 1.0))


@pytest.mark.parametrize("C", [1.0, GRID])
def test_margins_are_deterministic_and_use_no_global_randomness(C: Any) -> None:
    x, y = blobs(60)
    first = margins(x, y, C)
    before = random_state()
    again = margins(x, y, C)
    assert torch.equal(first, again)
    assert random_state() == before


def test_features_of_another_dtype_or_with_a_gradient() -> None:
    x, y = blobs()
    expected = margins(x, y, 1.0)
    assert torch.equal(margins(x.double(), y, 1.0), expected)
    assert torch.equal(margins(x.clone().requires_grad_(), y, 1.0), expected)
    assert not expected.requires_grad
    assert margins(x.half(), y, 1.0).dtype == torch.float32


# Bad input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("C", [1.0, GRID])
def test_a_single_class(C: Any) -> None:
    x, _ = blobs()
    with pytest.raises(ValueError, match="at least 2 classes for an SVM, got only class 5"):
        margins(x, torch.full((120,), 5), C)
    with pytest.raises(ValueError, match="at least 2 classes"):
        margins(x[:1], torch.tensor([0]), C)


def test_a_class_with_one_sample_and_several_C() -> None:
    x, y = blobs(20)
    y[:], y[7] = 4, 6
    with pytest.raises(ValueError, match=r"at least 2 samples.*got 1 in class 6\. Give one C"):
        margins(x, y, (0.1, 1.0))
    with pytest.raises(ValueError, match="got 1 in class 6"):
        margins(x, y)
    assert margins(x, y, 1.0).isfinite().all()
    assert margins(x[6:8], y[6:8], 1.0).isfinite().all()


@pytest.mark.parametrize(
    ("C", "error", "words"),
    [
        (0, ValueError, r"C must be in \(0, inf\), got 0"),
        (-1.0, ValueError, r"C must be in \(0, inf\), got -1.0"),
        (float("nan"), ValueError, "C must be in .*got nan"),
        (float("inf"), ValueError, "C must be in .*got inf"),
        ((1.0, 0.0), ValueError, "C must be in .*got 0.0"),
        ([float("nan")], ValueError, "C must be in .*got nan"),
        ("1", TypeError, "C must be a number in .*got '1'"),
        ("", TypeError, "C must be a number in .*got ''"),
        ((), TypeError, r"C must be a number in .*got \(\)"),
        (None, TypeError, "C must be a number in .*got None"),
        (True, TypeError, "C must be a number in .*got True"),
        ((1.0, "2"), TypeError, "C must be a number in .*got '2'"),
        ({"C": 1.0}, TypeError, "C must be a number in"),
    ],
)
def test_bad_C(C: Any, error: type[Exception], words: str) -> None:
    x, y = blobs(20)
    for work in (lambda: margins(x, y, C), lambda: Margin(C), lambda: SupportVectors(C)):
        with pytest.raises(error, match=words):
            work()


@pytest.mark.parametrize(
    ("labels", "error", "words"),
    [
        ([0, 1], ValueError, r"labels must have shape \(20,\), got \(2,\)"),
        ([0.0] * 20, TypeError, "labels must be integer class labels"),
        ([-1, 1] * 10, ValueError, "labels must be 0 or more"),
    ],
)
def test_bad_labels(labels: list[Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        margins(blobs(20)[0], torch.tensor(labels), 1.0)


@pytest.mark.parametrize("absent", ["sklearn.svm", "sklearn.model_selection"])
def test_without_scikit_learn(absent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, absent, None)
    x, y = blobs(20)
    words = "Margin and SupportVectors need scikit-learn. Install it: pip install scikit-learn"
    with pytest.raises(ImportError, match=words):
        margins(x, y, 1.0)
    with pytest.raises(ImportError, match=words):
        Margin(1.0)(Evidence(20, y, features=x))


@pytest.mark.slow
def test_a_python_without_scikit_learn() -> None:
    """The package can be imported and the score built; only fitting asks for it."""
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "import torch\n"
        "from augloader import Evidence, Margin\n"
        "score = Margin()\n"
        "try: score(Evidence(4, torch.tensor([0, 0, 1, 1]), features=torch.eye(4)))\n"
        "except ImportError as error: print(error)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.startswith("Margin and SupportVectors need scikit-learn.")


def test_arrays_have_margins() -> None:
    x, y = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]]), torch.tensor([0, 0, 1, 1])
    expected = margins(x, y, 1.0)
    for rows, labels in ((x.numpy(), y.numpy()), (x.tolist(), y.tolist()), (x, y.to(torch.int8))):
        assert torch.equal(margins(rows, labels, np.float32(1)), expected)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"features must be \(n, d\) floating, got \(4,\)"):
        margins(x[:, 0], y)
    with pytest.raises(ValueError, match="features must be finite"):
        margins(x * torch.inf, y)
