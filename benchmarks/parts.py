"""What scale.py measures: each part for one size, in a process of its own.

first draw   next(iter(sampler)) of an epoch of n base draws and copies of 30 %
epoch        all draws of it, beside torch's RandomSampler over n
rank         what one of 64 ranks holds beyond the sample table and the selection
report       a batch of 256 losses, told a sampler
refresh      Rank(Loss()) from reported logits of 10 classes: memory over the logits' own
selection    FacilityLocation of one class, 64 wide: 1 % and 10 %
mapped       FacilityLocation of one class, 64 wide, 1 %, whose proxies lie in a file
classes      FacilityLocation of 10 % of 1,000 classes: memory over the proxies' own
influence    leave-one-out, 10 classes, 512 features, by Kronecker factors and by the diagonal: the
             larger memory over the input
k-DPP        the linear kernel's draw of 32, 64 features: memory over the input
sweep        LastLayerGradient, 100 classes, 256 features: memory over what it returns
pass         a sweep of items of 3 x 32 x 32 for Residual(), beside a plain loader's pass for
             the losses, through a small network
erasing      "erasing" on 64 uint8 images of n x n beside torchvision's RandomErasing
policies     "trivial", "rand" and "auto" on 32 float images of n x n beside torchvision's
threads      "trivial" on n uint8 images of 32 x 32: time with all cores over that with one
mixing       Mixup and CutMix of 256 small images, 64 large ones: time over torchvision's
candidates   HardestOf 4 of 16 images of n x n: time over that of its parts alone
import       the sampler and the dataset beside torch
"""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from common import Reading, measure
from imports import IMPORTS, seconds
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler, Subset, TensorDataset
from torchvision.transforms import v2

import augloader
from augloader import (
    KDPP,
    AdaptiveStrengthTransform,
    CoresetSampler,
    CutMix,
    DistributedCoresetSampler,
    Evidence,
    FacilityLocation,
    HardestOf,
    LastLayerGradient,
    Loss,
    Mixup,
    Proxies,
    Rank,
    Residual,
    Sample,
    Uniform,
    sweep,
)
from augloader.selection import influence
from augloader.selection.leave_one_out import HESSIANS

FRACTION, BATCH, CLASSES, WIDE, RANKS = 0.3, 256, 10, 64, 64
LIMIT = 12 * 10**9  # bytes of the largest selection
REPEATS = 41  # of small steps, whose median counts


def sampler_of(n: int) -> CoresetSampler:
    """Return a sampler whose epoch has begun, with its selection."""
    sampler = CoresetSampler(range(n), Uniform(), fraction=FRACTION)
    sampler.refresh()
    return sampler


def exhaust(sampler: Any) -> int:
    return sum(1 for _ in sampler)


def first_draw(n: int) -> Reading:
    sampler = sampler_of(n)
    return measure(lambda: next(iter(sampler)))[1]


def epoch(n: int) -> Reading:
    """Measure an epoch's draws a second, and those of torch's RandomSampler."""
    rates = []
    for sampler in (sampler_of(n), RandomSampler(range(n))):
        draws, reading = measure(lambda: exhaust(sampler))  # noqa: B023 - called at once
        rates.append(draws / reading["cpu_seconds"])
    return {"ours": rates[0], "torch": rates[1], "ratio": rates[0] / rates[1]}


def rank(n: int) -> Reading:
    """Measure what a rank holds beside them: its plan, its state, a part of its draws."""

    def made() -> Any:
        sampler = DistributedCoresetSampler(
            range(n), Uniform(), num_replicas=RANKS, rank=RANKS - 1, fraction=FRACTION
        )
        sampler.refresh(Evidence(n))
        return sampler, next(iter(sampler))

    torch.zeros(n).add_(1)  # the allocator's first pages
    (sampler, _), reading = measure(made)
    chosen = sampler.selection
    held = 24 * n + chosen.indices.nbytes + chosen.weights.nbytes
    ctypes.CDLL(None).malloc_trim(0)  # what was freed is given back
    after = measure(lambda: None)[1]["base_mb"]
    return {"bytes_a_sample": ((after - reading["base_mb"]) * 2**20 - held) / n}


def batch_of(n: int, rng: np.random.Generator) -> Sample:
    index = torch.from_numpy(rng.choice(n, BATCH, replace=False))
    ones = torch.ones(BATCH)
    return Sample(None, index % CLASSES, index, ones, ones * 0, index * 0)


def report(n: int) -> Reading:
    sampler, rng, taken = sampler_of(n), np.random.default_rng(0), []
    for _ in range(REPEATS + 1):
        batch, losses = batch_of(n, rng), torch.rand(BATCH)
        begun = perf_counter()
        sampler.report(batch, loss=losses)
        taken.append(perf_counter() - begun)
    return {"seconds": median(taken[1:])}


def refresh(n: int) -> Reading:
    sampler = CoresetSampler(range(n), Rank(Loss()), fraction=0.1)
    logits, index = torch.randn(n, CLASSES), torch.arange(n)
    sampler.table.keep_logits = True  # as where proxies are wanted too
    sampler.table.report(index, logits=logits, target=index % CLASSES)
    reading = measure(sampler.refresh)[1]
    return over(reading, logits.nbytes)


def mixture(n: int, seed: int = 0) -> Tensor:
    """Return n points around 20 means, float32."""
    generator = torch.Generator().manual_seed(seed)
    means = 2 * torch.randn(20, WIDE, generator=generator)
    points = torch.randn(n, WIDE, generator=generator)
    return points.add_(means[torch.randint(20, (n,), generator=generator)])


def select(n: int, share: float) -> Reading:
    strategy, rng = FacilityLocation(per_class=False), np.random.default_rng(0)
    strategy.select(Evidence(500, proxies=Proxies(mixture(500, 1))), 50, generator=rng)
    evidence = Evidence(n, proxies=Proxies(mixture(n)))
    return measure(lambda: strategy.select(evidence, round(share * n), generator=rng))[1]


def mapped(n: int) -> Reading:
    """Measure the selection from a memory-mapped file, of which what is read counts as memory."""
    strategy, rng = FacilityLocation(per_class=False, memory_limit=LIMIT), np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "proxies.npy"
        file = np.lib.format.open_memmap(path, "w+", np.float32, (n, WIDE))
        means = 2 * np.random.default_rng(0).standard_normal((20, WIDE))
        for first in range(0, n, 10**5):
            part = file[first : first + 10**5]
            part[:] = rng.standard_normal(part.shape) + means[rng.integers(20, size=len(part))]
        file.flush()
        del file, part
        evidence = Evidence(n, proxies=Proxies(np.load(path, mmap_mode="c")))
        chosen, reading = measure(lambda: strategy.select(evidence, n // 100, generator=rng))
    assert chosen.certificate is not None
    return reading | {"covered": chosen.certificate.covered, "limit_mb": LIMIT / 2**20}


def classes(n: int) -> Reading:
    """Measure the selection from n / 1,000 classes of 1,000."""
    strategy, rng, labels = FacilityLocation(), np.random.default_rng(0), torch.arange(n) % 1000
    strategy.select(Evidence(500, labels[:500] % 5, Proxies(mixture(500, 1))), 50, generator=rng)
    points = mixture(n)
    evidence = Evidence(n, torch.arange(n) // 1000, Proxies(points))
    chosen, reading = measure(lambda: strategy.select(evidence, n // 10, generator=rng))
    held = measure(lambda: None)[1]["base_mb"]
    over = {"peak": reading["peak_mb"], "left": held}
    assert len(chosen) == n // 10
    return reading | {
        f"{name}_over": (value - reading["base_mb"]) * 2**20 / points.nbytes
        for name, value in over.items()
    }


def over(reading: Reading, size: int) -> Reading:
    return reading | {"over": (reading["peak_mb"] - reading["base_mb"]) * 2**20 / size}


def of_influence(n: int) -> Reading:
    g = torch.randn(n, CLASSES).softmax(1)
    g[torch.arange(n), torch.arange(n) % CLASSES] -= 1
    proxies = Proxies(g, torch.randn(n, 512))
    few, found = Proxies(g[:500], torch.randn(500, 512)), []
    for kind in HESSIANS[1:]:  # the exact one takes memory of its own
        influence(few, 1.0, kind)
        reading = measure(lambda: influence(proxies, 1.0, kind))[1]  # noqa: B023 - called at once
        found.append(over(reading, 4 * n * (CLASSES + 512)))
    return max(found, key=lambda reading: reading["over"])


def k_dpp(n: int) -> Reading:
    features, rng = mixture(n), np.random.default_rng(0)
    KDPP().select(Evidence(500, features=features[:500]), 32, generator=rng)
    evidence = Evidence(n, features=features)
    return over(measure(lambda: KDPP().select(evidence, 32, generator=rng))[1], features.nbytes)


def swept(n: int) -> Reading:
    head = torch.nn.Linear(256, 100)
    data = TensorDataset(torch.randn(n, 256), torch.arange(n) % 100)
    sweep(head, Subset(data, range(500)), LastLayerGradient(), progress=False)
    found, reading = measure(
        lambda: sweep(head, data, LastLayerGradient(), batch_size=512, progress=False)
    )
    assert found.n == n
    return over(reading, 4 * n * (100 + 257))


def passed(n: int) -> Reading:
    """Measure a sweep's seconds over those of a plain pass, in turn."""
    items = [(image, i % CLASSES) for i, image in enumerate(torch.rand(n, 3, 32, 32))]
    convolutions = [nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, CLASSES)]
    model = nn.Sequential(*convolutions, *head).eval()

    @torch.no_grad()
    def plain() -> Tensor:
        batches: Any = DataLoader(items, BATCH)  # type: ignore[arg-type]
        return torch.cat([F.cross_entropy(model(x), y, reduction="none") for x, y in batches])

    def ours() -> Tensor | None:
        return sweep(model, items, Residual(), batch_size=BATCH, progress=False).losses

    torch.testing.assert_close(plain(), ours())
    taken = [[measure(call)[1]["cpu_seconds"] for call in (ours, plain)] for _ in range(9)]
    return {"ratio": median(mine / peers for mine, peers in taken)}


def times_of(call: Callable[[], object]) -> float:
    call()
    return median(measure(call)[1]["cpu_seconds"] for _ in range(9))


def erasing(n: int) -> Reading:
    """Measure images of n x n a second beside torchvision's, which takes one at a time."""
    images = torch.randint(256, (64, 3, n, n), dtype=torch.uint8)
    ours, theirs = AdaptiveStrengthTransform("erasing"), v2.RandomErasing(p=1.0)
    ones = torch.ones(64)
    mine = times_of(lambda: ours(images, ones))
    peers = times_of(lambda: torch.stack([theirs(image) for image in images]))
    return {"ours": 64 / mine, "torchvision": 64 / peers, "ratio": peers / mine}


def policies(n: int) -> Reading:
    """Measure whole batches of float images beside torchvision's, one at a time: the slowest."""
    images, ratios = torch.rand(32, 3, n, n), {}
    theirs = v2.TrivialAugmentWide, v2.RandAugment, v2.AutoAugment
    for name, peer in zip(("trivial", "rand", "auto"), theirs, strict=True):
        ours, one = AdaptiveStrengthTransform(name), peer()
        mine = times_of(lambda: ours(images, 1.0))  # noqa: B023 - called at once
        peers = times_of(lambda: torch.stack([one(image) for image in images]))  # noqa: B023
        ratios[name] = peers / mine
    return ratios | {"ratio": min(ratios.values())}


def threads(n: int) -> Reading:
    images = torch.randint(256, (n, 3, 32, 32), dtype=torch.uint8)
    transform, taken = AdaptiveStrengthTransform("trivial"), dict[int, list[float]]()
    given = torch.get_num_threads()
    for _ in range(REPEATS):
        for count in (1, os.cpu_count() or 1):
            torch.set_num_threads(count)
            begun = perf_counter()
            transform(images, 1.0)
            taken.setdefault(count, []).append(perf_counter() - begun)
    torch.set_num_threads(given)
    return {"ratio": median(taken[max(taken)]) / median(taken[1])}


def batch_of_images(images: Tensor) -> Sample:
    ones = torch.ones(len(images))
    return Sample(images, torch.arange(len(ones)) % CLASSES, torch.arange(len(ones)), ones, ones)


def mixing(n: int) -> Reading:
    """Measure mixers over torchvision's time; the largest."""
    levels = torch.randint(256, (max(64, 2**18 // n**2), 3, n, n), dtype=torch.uint8)
    ratios = {}
    for name, images, ours, theirs in (
        ("mixup", levels / 255, Mixup(CLASSES), v2.MixUp(num_classes=CLASSES)),
        ("cutmix", levels / 255, CutMix(CLASSES), v2.CutMix(num_classes=CLASSES)),
        ("cutmix_uint8", levels, CutMix(CLASSES), v2.CutMix(num_classes=CLASSES)),
    ):
        batch = batch_of_images(images)
        mine = times_of(lambda: ours(batch))  # noqa: B023 - called at once
        ratios[name] = mine / times_of(lambda: theirs(batch.input, batch.target))  # noqa: B023
    return ratios | {"ratio": max(ratios.values())}


def candidates(n: int) -> Reading:
    """Measure HardestOf over its transform and forwards, of a small network."""
    parts = torch.nn.Conv2d(3, 16, 7, stride=2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1)
    model = torch.nn.Sequential(*parts, torch.nn.Flatten(), torch.nn.Linear(16, CLASSES)).eval()
    strong = AdaptiveStrengthTransform("trivial", dtype=torch.float32)
    hardest = HardestOf(strong, candidates=4)
    batch = batch_of_images(torch.randint(256, (16, 3, n, n), dtype=torch.uint8))
    many = batch.input.repeat(4, 1, 1, 1)
    made = strong(many, 1.0)

    @torch.no_grad()
    def alone() -> None:
        strong(many, 1.0)
        for part in made.split(16):
            model(part)

    return {"ratio": times_of(lambda: hardest(batch, model)) / times_of(alone)}


def imports(n: int) -> Reading:
    root = Path(augloader.__file__).parents[1]
    taken = [[seconds(IMPORTS[name], root) for name in ("torch", "a name")] for _ in range(5)]
    torchs, ours = (median(values) for values in zip(*taken, strict=True))
    return {"torch": torchs, "ours": ours, "ratio": ours / torchs}


PARTS: dict[str, Callable[..., Reading]] = {
    "first draw": first_draw,
    "epoch": epoch,
    "rank": rank,
    "report": report,
    "refresh": refresh,
    "selection": select,
    "mapped": mapped,
    "classes": classes,
    "influence": of_influence,
    "k-DPP": k_dpp,
    "sweep": swept,
    "pass": passed,
    "erasing": erasing,
    "policies": policies,
    "threads": threads,
    "mixing": mixing,
    "candidates": candidates,
    "import": imports,
}
