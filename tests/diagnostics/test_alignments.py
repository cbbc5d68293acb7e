"""Errors of selections, against vectors written out; the bound holds as a theorem."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from augloader import Evidence, FacilityLocation, Proxies, Selection, Uniform
from augloader.diagnostics import alignment
from augloader.diagnostics.alignments import Alignment


def points(n: int, seed: int, factored: bool) -> Proxies:
    generator = torch.Generator().manual_seed(seed)
    g = torch.randn(n, 3, generator=generator)
    return Proxies(g, torch.randn(n, 4, generator=generator) if factored else None)


def vectors(proxies: Proxies) -> Tensor:
    """Return the proxies written out, (n, d) float64."""
    g, h = proxies.gradient.double(), proxies.features
    return g if h is None else torch.einsum("nc,nd->ncd", g, h.double()).flatten(1)


def select(proxies: Proxies, k: int, labels: Tensor | None = None) -> Selection:
    evidence = Evidence(len(proxies), labels, proxies)
    strategy = FacilityLocation(per_class=labels is not None)
    return strategy.select(evidence, k, generator=np.random.default_rng(0))


def brute(
    g: Tensor, a: Tensor | None, selection: Selection, groups: Tensor, some: Tensor
) -> dict[str, float]:
    """Return the measurements of some samples, a sample at a time."""
    weight = dict(zip(selection.indices.tolist(), selection.weights.tolist(), strict=True))
    members = some.tolist()
    inside = [j for j in weight if j in members]
    m = [
        min(float((g[i] - g[j]).norm()) for j in weight if groups[i] == groups[j]) for i in members
    ]
    whole = sum((g[i] for i in members), torch.zeros_like(g[0]))
    part = sum((weight[j] * g[j] for j in inside), torch.zeros_like(g[0]))
    found = {
        "n": len(members),
        "selected": len(inside),
        "norm": float(whole.norm()),
        "error": float((whole - part).norm()),
        "bound": sum(m),
        "frobenius": sum(x**2 for x in m) ** 0.5,
    }
    if a is not None:
        moved = sum((weight[j] * a[j] for j in inside), torch.zeros_like(g[0]))
        every = sum((a[i] for i in members), torch.zeros_like(g[0]))
        shift = sum(float((a[i] - g[i]).norm()) for i in members)
        shift += sum(weight[j] * float((a[j] - g[j]).norm()) for j in inside)
        found |= {
            "augmented_norm": float(every.norm()),
            "augmented_error": float((every - moved).norm()),
            "augmented_bound": found["bound"] + shift,
            "replaced": float((whole - moved).norm()),
        }
    return found


def require_same(found: Alignment, expected: dict[str, float]) -> None:
    mine = {name: getattr(found, name) for name in expected}
    assert mine == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("factored", [False, True])
@pytest.mark.parametrize("by_class", [False, True])
def test_it_is_what_vectors_written_out_say(factored: bool, by_class: bool) -> None:
    proxies, augmented = points(24, 0, factored), points(24, 1, factored)
    labels = torch.arange(24) % 3 if by_class else None
    selection = select(proxies, 7, labels)
    found = alignment(proxies, selection, augmented)
    groups = torch.zeros(24) if labels is None else labels
    g, a = vectors(proxies), vectors(augmented)
    require_same(found, brute(g, a, selection, groups, torch.arange(24)))
    assert list(found.classes) == ([0, 1, 2] if by_class else [])
    for label, one in found.classes.items():
        some = (groups == label).nonzero().flatten()
        require_same(one, brute(g, a, selection, groups, some))
    given = alignment(proxies, selection, augmented, labels=labels)
    require_same(given, {name: getattr(found, name) for name in ("error", "bound", "replaced")})


@pytest.mark.parametrize("factored", [False, True])
def test_augmented_proxies_of_the_selected_alone(factored: bool) -> None:
    proxies, augmented = points(20, 2, factored), points(20, 3, factored)
    selection = select(proxies, 6)
    whole = alignment(proxies, selection, augmented)
    some = alignment(proxies, selection, augmented[selection.indices])
    assert some.replaced == pytest.approx(whole.replaced)
    assert (some.augmented_norm, some.augmented_error, some.augmented_bound) == (None,) * 3
    none = alignment(proxies, selection)
    assert (none.error, none.bound, none.replaced) == (some.error, some.bound, None)


@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 25),
    share=st.floats(0, 1),
    classes=st.integers(0, 3),
    factored=st.booleans(),
    copies=st.booleans(),
)
def test_no_error_is_above_its_bound(
    seed: int, n: int, share: float, classes: int, factored: bool, copies: bool
) -> None:
    proxies, augmented = points(n, seed, factored), points(n, seed + 1, factored)
    if copies:  # ties
        rows = torch.arange(n) // 2
        proxies, augmented = proxies[rows], augmented[rows]
    labels = torch.arange(n) % classes if classes else None
    least = 1 if labels is None else len(labels.unique())
    selection = select(proxies, least + round(share * (n - least)), labels)
    found = alignment(proxies, selection, augmented)
    for one in (found, *found.classes.values()):
        tolerance = 1e-4 * (1 + one.norm)
        assert one.error <= one.bound + tolerance
        assert one.augmented_error is not None
        assert one.augmented_bound is not None
        assert one.augmented_error <= one.augmented_bound + tolerance
        assert one.frobenius <= one.bound + tolerance
    if classes > 1:
        assert found.error <= sum(one.error for one in found.classes.values()) + 1e-4
        assert found.bound == pytest.approx(sum(one.bound for one in found.classes.values()))


def test_all_selected_is_no_error_and_the_bound_is_the_certificates_shortfall() -> None:
    proxies = points(12, 4, True)
    every = Selection(torch.arange(12), torch.ones(12))
    found = alignment(proxies, every, proxies)
    assert (found.error, found.bound, found.augmented_error) == (0, 0, 0)
    assert found.augmented_bound == pytest.approx(0, abs=1e-9)
    # Coverage is n c1 - sum of m, so bounds differ as coverages do.
    whole = select(proxies, 6)
    few = whole.first(3)
    assert whole.certificate is not None
    assert few.certificate is not None
    gained = whole.certificate.coverage - few.certificate.coverage
    bounds = [alignment(proxies, part).bound for part in (few, whole)]
    assert bounds[0] - bounds[1] == pytest.approx(gained, rel=1e-5)


def test_xi_is_what_the_bound_says() -> None:
    proxies = points(30, 5, False)
    wanted = alignment(proxies, select(proxies, 9)).bound * 1.0001
    strategy = FacilityLocation(per_class=False, xi=wanted)
    stopped = strategy.select(Evidence(30, proxies=proxies), 20, generator=np.random.default_rng(0))
    assert len(stopped) == 9


def test_other_weights_may_exceed_the_bound() -> None:
    g = torch.tensor([[0.0], [0.0], [9.0]])
    selection = Uniform().select(Evidence(3), 3, generator=np.random.default_rng(0))
    assert alignment(g, selection).error == 0
    heavy = Selection(torch.tensor([0, 2]), torch.tensor([1.5, 1.5]))
    found = alignment(g, heavy)
    assert (found.error, found.bound) == (4.5, 0)


def test_blocks_of_distances_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    proxies = points(40, 6, True)
    selection = select(proxies, 5)
    whole = alignment(proxies, selection)
    monkeypatch.setattr("augloader.diagnostics.alignments._BLOCK", 12)
    assert alignment(proxies, selection).bound == pytest.approx(whole.bound)


def test_what_it_refuses() -> None:
    proxies, labels = points(6, 0, True), torch.tensor([0, 0, 0, 1, 1, 1])
    selection = select(proxies, 2)
    with pytest.raises(TypeError, match="selection must be a Selection, got Tensor"):
        alignment(proxies, labels)  # type: ignore[arg-type]
    far = Selection(torch.tensor([9]), torch.tensor([6.0]))
    with pytest.raises(ValueError, match=r"proxies must be of all samples .* at least 10, got 6"):
        alignment(proxies, far)
    with pytest.raises(ValueError, match="augmented must be of all 6 samples or of the 2 selected"):
        alignment(proxies, selection, points(5, 1, True))
    with pytest.raises(ValueError, match="proxies must have the same widths"):
        alignment(proxies, selection, points(6, 1, False))
    with pytest.raises(ValueError, match=r"labels must have shape \(6,\), got \(5,\)"):
        alignment(proxies, selection, labels=labels[:5])
    one_sided = Selection(torch.tensor([0]), torch.tensor([6.0]))
    with pytest.raises(ValueError, match=r"got no selected sample of 1\. Leave labels out"):
        alignment(proxies, one_sided, labels=labels)
