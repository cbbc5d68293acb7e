"""Segment shapes, augmenting 30 % of the images: masks follow, and a coreset costs no extra pass.

    python examples/segmentation.py               synthetic, nothing to download

Every image shows upright circles, squares and triangles on noise; the network says of every pixel
what it belongs to. Two things differ from classification:

    what follows      a pair (image, mask) is the dataset's input, so that the weak transform flips
                      both, and ``strong((images, masks), ...)`` moves both by one geometry;
    what is reported  a loss for each image, the mean over its pixels, and as its proxy the pixels'
                      residuals p - y, summed over the pixels of each class: (B, C, C). Groups, here
                      the largest shape, stand where classes would.

Prints the mean intersection over union (IoU) on test images as drawn and on transformed ones:
without strong augmentation, with all images augmented, with a random 30 % and with a coreset.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from adaptive_strength import conclude
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as image_ops
from tqdm import tqdm

from augloader import (
    AdaptiveStrengthTransform,
    CoresetSampler,
    Every,
    FacilityLocation,
    Strategy,
    Uniform,
    WeightedAugmentedDataset,
)

SIZE, CLASSES = 48, 4  # background, circle, square, triangle
MEAN, STD = (0.4, 0.4, 0.4), (0.25, 0.25, 0.25)
METHODS: dict[str, tuple[Strategy, float] | None] = {
    "weak only": None,
    "full": (Uniform(), 1.0),
    "uniform 30 %": (Uniform(), 0.3),
    "coreset 30 %": (FacilityLocation(), 0.3),
}


@dataclass
class Run:
    """One training run: mean IoU on test images as drawn and transformed, and seconds."""

    clean: float
    transformed: float
    seconds: float


def shapes(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return n images, (n, 3, S, S) uint8, and their masks, (n, S, S) int64."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    images = 0.1 + 0.4 * torch.rand(n, 3, SIZE, SIZE, generator=generator)
    masks = torch.zeros(n, SIZE, SIZE, dtype=torch.int64)
    for image, mask in zip(images, masks, strict=True):
        for _ in range(int(torch.randint(1, 4, (), generator=generator))):
            kind = int(torch.randint(1, CLASSES, (), generator=generator))
            radius = float(6 + 5 * torch.rand((), generator=generator))
            row, column = 10 + (SIZE - 20) * torch.rand(2, generator=generator)
            down, right = y - row, x - column
            inside = {
                1: down**2 + right**2 <= radius**2,
                2: torch.maximum(down.abs(), right.abs()) <= 0.85 * radius,
                3: (down <= 0.7 * radius) & (down >= 2 * right.abs() - radius),
            }[kind]
            colour = 0.4 + 0.6 * torch.rand(3, 1, generator=generator)
            image[:, inside] = 0.8 * colour + 0.2 * image[:, inside]
            mask[inside] = kind
    return (images * 255).round().to(torch.uint8), masks


def largest(masks: Tensor) -> Tensor:
    """Return each image's largest shape, (n,) in 0 to C - 2: the group that it is selected in."""
    return F.one_hot(masks, CLASSES).sum((1, 2))[:, 1:].argmax(1)


def pooled_residual(logits: Tensor, masks: Tensor) -> Tensor:
    """Return residuals p - y, summed over the pixels of each class and flattened, (B, C * C)."""
    truth = F.one_hot(masks, CLASSES).movedim(-1, 1).float()
    residuals = logits.detach().float().softmax(1) - truth
    return torch.einsum("bkhw,bchw->bkc", truth, residuals).flatten(1) / masks[0].numel()


def network() -> nn.Module:
    """Return a small fully convolutional network, which sees about half of the image at a pixel."""
    layers: list[nn.Module] = []
    for before, width, step in ((3, 16, 2), (16, 32, 2), (32, 32, 1), (32, 32, 1)):
        layers += [nn.Conv2d(before, width, 5, step, 2, bias=False), nn.BatchNorm2d(width)]
        layers += [nn.ReLU()]
    up = nn.Upsample(scale_factor=4, mode="bilinear", align_corners=False)
    return nn.Sequential(*layers, nn.Conv2d(32, CLASSES, 1), up)


def train(pictures: tuple[Tensor, Tensor], method: str, epochs: int, seed: int) -> nn.Module:
    """Train one network. This is the loop that a user of augloader writes."""
    torch.manual_seed(seed)
    strategy, fraction = METHODS[method] or (Uniform(), 1.0)
    images, masks = pictures
    pairs = zip(map(tv_tensors.Image, images), map(tv_tensors.Mask, masks), strict=True)
    items = list(zip(pairs, largest(masks).tolist(), strict=True))
    data = WeightedAugmentedDataset(items, weak=v2.RandomHorizontalFlip())  # of image and mask
    sampler = CoresetSampler(
        data,
        strategy,
        fraction=fraction,
        refresh=Every(5, warmup=1 if METHODS[method] else epochs),
        weighting="uniform",
        seed=seed,
    )
    loader = DataLoader(data, batch_size=32, sampler=sampler)
    strong = AdaptiveStrengthTransform("trivial", seed=seed, mean=MEAN, std=STD)
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003, weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        if sampler.refresh_due:
            sampler.refresh()  # from what was reported: no forward pass
        for batch in loader:
            images, masks = batch.input
            moved = (images, tv_tensors.Mask(masks))  # stacking makes plain tensors of masks
            images, masks = strong(moved, batch.strength, keys=batch.keys)
            logits = model(images)
            loss = F.cross_entropy(logits, masks, reduction="none").mean((1, 2))
            optimizer.zero_grad()
            (loss * batch.weight).mean().backward()
            optimizer.step()
            proxy = pooled_residual(logits, masks)
            sampler.report(batch, loss=loss, proxy=proxy, target=batch.target)
        scheduler.step()
    return model


def transformed(images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return all images rotated and shifted both ways, darker and brighter, with their masks."""
    views = []
    for angle, shift, light in ((15, 10, 1.0), (-15, -10, 1.0), (0, 0, 0.6), (0, 0, 1.5)):
        pair = tv_tensors.Image(images), tv_tensors.Mask(masks)
        moved = [image_ops.affine(p, angle, [shift, -shift], 1.0, [0.0, 0.0]) for p in pair]
        views.append((image_ops.adjust_brightness(moved[0], light), moved[1]))
    return torch.cat([image for image, _ in views]), torch.cat([mask for _, mask in views])


@torch.inference_mode()
def mean_iou(model: nn.Module, images: Tensor, masks: Tensor) -> float:
    """Return the intersection over union of predicted and true pixels, mean over the classes."""
    model.eval()
    normal = (images / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    guesses = torch.cat([model(part).argmax(1) for part in normal.split(100)])
    count = (masks * CLASSES + guesses).flatten().bincount(minlength=CLASSES**2)
    table = count.view(CLASSES, CLASSES).double()
    shared = table.diagonal()
    return float((shared / (table.sum(0) + table.sum(1) - shared).clamp(min=1)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--images", type=int, default=160, help="training images")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write every run's figures to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)  # the images are small: more threads only get in each other's way
    pictures, tests = shapes(args.images, seed=0), shapes(200, seed=1)
    views = transformed(*tests)
    runs: dict[str, list[Run]] = {name: [] for name in METHODS}
    for name, seed in tqdm([(name, seed) for seed in range(args.seeds) for name in METHODS]):
        started = time.perf_counter()
        model = train(pictures, name, args.epochs, seed)
        seconds = time.perf_counter() - started
        runs[name].append(Run(mean_iou(model, *tests), mean_iou(model, *views), seconds))
    conclude("mean IoU", {"clean": "as drawn", "transformed": "transformed"}, runs, args.json)


if __name__ == "__main__":
    main()
