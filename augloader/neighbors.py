"""Nearest neighbours: which medoid a point belongs to."""

from __future__ import annotations

import faiss
import torch
from torch import Tensor

from augloader.proxies import Proxies

_BLOCK = 1024  # rows of a distance matrix held at a time


def nearest(points: Proxies, medoids: Proxies) -> tuple[Tensor, Tensor]:
    """Find the nearest medoid of every point.

    Vectors are searched in a flat FAISS index, on the GPU where the points are there and FAISS was
    built for it. Outer products g (x) h would need vectors of C * d numbers, so their exact
    distances are compared block by block, from Gram matrices.

    Args:
        points: n proxies; any points, not only those that the medoids were chosen from.
        medoids: k proxies of the same form.

    Returns:
        (n,) int64 positions among the medoids and (n,) float32 distances, on the points' device.
        Equally near medoids may come in any order.

    Raises:
        ValueError: the two differ in form or width.

    Cost: O(n k d) time for vectors of width d, O(n k (C + d)) for outer products.

    Example:
        >>> points = Proxies(torch.tensor([[0.0], [4.0], [5.0]]))
        >>> nearest(points, points[torch.tensor([0, 2])])[0]
        tensor([0, 1, 1])

    Source: cluster sizes of Liu & Mirzasoleiman (2022), Alg. 1 line 8.
    """
    points.require_same_form(medoids)
    if points.features is None:
        return _search(points.gradient, medoids.gradient)
    parts = []
    for start in range(0, len(points), _BLOCK):
        rows = torch.arange(start, min(start + _BLOCK, len(points)), device=points.device)
        parts.append(points[rows].distances(medoids).min(1))
    return torch.cat([p.indices for p in parts]), torch.cat([p.values for p in parts])


def _search(points: Tensor, medoids: Tensor) -> tuple[Tensor, Tensor]:
    points, medoids = points.float(), medoids.float()
    centre = medoids.mean(0)  # FAISS expands the square: small norms keep it exact
    index: faiss.Index = faiss.IndexFlatL2(points.shape[1])
    if points.device.type == "cuda" and faiss.get_num_gpus() > 0:
        resources = faiss.StandardGpuResources()
        index = faiss.index_cpu_to_gpu(resources, points.device.index or 0, index)
    index.add((medoids - centre).cpu().numpy())
    found = torch.from_numpy(index.search((points - centre).cpu().numpy(), 1)[1][:, 0])
    found = found.to(points.device)
    return found, (points - medoids[found]).norm(dim=1)
