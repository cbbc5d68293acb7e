"""Singular values of the covariance of features, of all classes and within classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from augloader.core.checks import as_tensor, require_labels, require_vectors


@dataclass(frozen=True, eq=False)
class FeatureSpectrum:
    """The spectra of the features' covariances, all in descending order.

    Attributes:
        all: (d,) float64, singular values of the covariance of all samples.
        within: (d,) float64, those of the mean of the classes' covariances, each counted by its
            number of samples.
        classes: (c,) int64, the labels that occur, ascending.
        counts: (c,) int64, how many samples each has.
        of_class: (c, d) float64, singular values of each class's covariance about its own mean.
    """

    all: Tensor
    within: Tensor
    classes: Tensor
    counts: Tensor
    of_class: Tensor

    def __repr__(self) -> str:
        """Return the sizes, and the share of the variance that lies within the classes."""
        total = float(self.all.sum())
        share = f"{100 * float(self.within.sum()) / total:.1f} %" if total > 0 else "none"
        return (
            f"{type(self).__name__}({int(self.counts.sum()):,} samples, {len(self.classes):,} "
            f"classes, {len(self.all):,} features; {share} of the variance within classes)"
        )


def feature_spectrum(features: Tensor, labels: Tensor) -> FeatureSpectrum:
    """Return the singular values of the all-class and the intra-class covariance of features.

        all: 1/n sum_i (h_i - mean)(h_i - mean)^T
        of class c: 1/n_c sum_{i in c} (h_i - mean_c)(h_i - mean_c)^T
        within: 1/n sum_c n_c (covariance of class c)

    A covariance is symmetric and positive, so its singular values are its eigenvalues: the variance
    of the features along its principal directions. The paper's figure shows class 0 and all
    classes, without dividing by the numbers of samples: multiply by ``counts`` for its scale.

    Args:
        features: (n, d) floating and finite, what the last layer is given, as ``sweep`` finds it.
        labels: (n,) integer, 0 or more.

    Returns:
        FeatureSpectrum, on the features' device (on the CPU for MPS).

    Raises:
        TypeError: features that are not floating, labels that are not integers.
        ValueError: other shapes, no samples, NaN or infinite features, negative labels.

    Cost: for all samples and for each class O(m q^2 + q^3), of m samples q = min(m, d).

    Example:
        >>> from augloader import LastLayerGradient, sweep
        >>> data = [(torch.tensor([3.0, 0.0]), 0), (torch.tensor([1.0, 0.0]), 0)]
        >>> data += [(torch.tensor([-2.0, 1.0]), 1), (torch.tensor([-2.0, -1.0]), 1)]
        >>> evidence = sweep(torch.nn.Linear(2, 2), data, LastLayerGradient())
        >>> found = feature_spectrum(evidence.features, evidence.labels)
        >>> found.all.round(decimals=4).tolist(), found.within.round(decimals=4).tolist()
        ([4.5, 0.5], [0.5, 0.5])
        >>> found.of_class.round(decimals=4).tolist()
        [[1.0, 0.0], [1.0, 0.0]]

    Source: He et al. (2019), section 4.1 and Fig. 3.
    """
    h = require_vectors(features, "features")
    if not len(h):
        raise ValueError("features must be of at least one sample, got none. Sweep the data set.")
    y = as_tensor("labels", labels, "Give one label a sample.")
    y = require_labels("labels", y, len(h)).to(h.device)
    h = (h.cpu() if h.device.type == "mps" else h).double()
    classes, place, counts = y.to(h.device).unique(return_inverse=True, return_counts=True)
    # About their means: singular values do not change by a rotation, nor by the order of samples.
    about = torch.zeros_like(h)
    spectra = []
    for one in range(len(classes)):
        members = place == one
        centred = h[members] - h[members].mean(0)
        about[members] = centred
        spectra.append(_spectrum(centred))
    whole = _spectrum(h - h.mean(0))
    return FeatureSpectrum(whole, _spectrum(about), classes, counts, torch.stack(spectra))


def _spectrum(centred: Tensor) -> Tensor:
    """Return the eigenvalues of X^T X / n, descending, (d,), from the smaller Gram matrix."""
    n, d = centred.shape
    gram = centred @ centred.T if n < d else centred.T @ centred
    found = torch.linalg.eigvalsh(gram / n).flip(0).clamp(min=0)
    return torch.cat([found, found.new_zeros(d - len(found))])
