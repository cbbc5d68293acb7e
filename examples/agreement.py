"""Augment what is sparse and agrees with another model, where a fifth of the labels is wrong.

    python examples/agreement.py                 scikit-learn's digits, nothing to download
    python examples/agreement.py --data DIR      an image folder with train/ and test/
    python examples/agreement.py --data DIR --clip    the other model is CLIP

An image agrees with its label as far as its embedding points where the embedding of its class
does. With ``--clip`` these are CLIP's, of the image and of "a photo of a cat"; transformers or
open_clip must be installed and fetches the weights. Without it they are the last features of a
small network, trained on one half of the training images, and the rows of its last layer.

The other half is trained on, with 20 % wrong labels. Prints how many of the mislabelled images are
among those of least agreement, and the accuracies of a network on clean and on transformed test
images over several seeds: where strong copies are made of all images, of any 30 %, of the 30 % in
the sparsest regions, of the 30 % that are sparse and agree (low density times agreement, as Yang et
al., ICML 2025), of all but the 20 % of least agreement, and where these 20 % are not trained on.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from adaptive_strength import conclude
from quickstart import (
    Problem,
    accuracy,
    digits,
    folder,
    mislabel,
    network,
    transformed_views,
)
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms.v2 import functional as image_ops
from tqdm import tqdm

from augloader import (
    AdaptiveStrengthTransform,
    Base,
    CoresetSampler,
    Every,
    Evidence,
    Given,
    LocalDensity,
    Product,
    Rank,
    Strategy,
    Uniform,
    WeightedAugmentedDataset,
)

METHODS: dict[str, tuple[Strategy, float, Base] | None] = {
    "weak only": None,
    "all": (Uniform(), 1.0, "full"),
    "uniform 30 %": (Uniform(), 0.3, "full"),
    "sparse 30 %": (Rank(LocalDensity(10)), 0.3, "full"),
    "sparse, agreeing 30 %": (Rank(Product(LocalDensity(10), Given())), 0.3, "full"),
    "agreeing 80 %": (Rank(Given()), 0.8, "full"),
    "only agreeing 80 %": (Rank(Given()), 0.8, "selected"),  # the others are not trained on
}
NOISE = 0.2
CLIP = ("openai/clip-vit-base-patch32", "ViT-B-32")  # of transformers, of open_clip


@dataclass
class Run:
    """One training run: accuracies, the share of wrong labels among the selected, seconds."""

    clean: float
    transformed: float
    wrong: float
    seconds: float


def agreement(image_features: Tensor, text_features: Tensor, labels: Tensor) -> Tensor:
    """Return the cosine of the angle between each image's embedding and that of its class.

    Args:
        image_features: (n, d) floating, of any encoder.
        text_features: (C, d) floating, of the same encoder: one prompt a class.
        labels: (n,) int64 in [0, C).

    Returns:
        (n,) float32 in [-1, 1]; an embedding of zeros agrees with nothing, 0.
    """
    own = F.normalize(text_features.float(), dim=1)[labels]
    return (F.normalize(image_features.float(), dim=1) * own).sum(1)


def evidence_of(image_features: Tensor, text_features: Tensor, labels: Tensor) -> Evidence:
    """Return what the strategies look at: features for the density, the agreement as scores."""
    scores = agreement(image_features, text_features, labels).clamp(min=0)  # a factor: 0 or more
    return Evidence(len(labels), features=image_features, scores=scores)


def by_clip(images: Tensor, prompts: list[str], name: str) -> tuple[Tensor, Tensor]:
    """Return CLIP's (n, d) and (C, d) embeddings of images in [0, 1] and of prompts."""
    for package, embed, usual in zip(
        ("transformers", "open_clip"), (_by_transformers, _by_open_clip), CLIP, strict=True
    ):
        try:
            module = import_module(package)
        except ImportError:
            continue
        with torch.no_grad():
            found = embed(module, images.expand(-1, 3, -1, -1), prompts, name or usual)
        return found[0].float(), found[1].float()
    raise SystemExit(
        "--clip must find transformers or open_clip, got neither. Install one: pip install "
        "transformers, or pip install open_clip_torch; or leave --clip out."
    )


def _by_transformers(
    transformers: Any, images: Tensor, prompts: list[str], name: str
) -> tuple[Tensor, Tensor]:
    model = transformers.CLIPModel.from_pretrained(name).eval()
    processor = transformers.CLIPProcessor.from_pretrained(name)
    parts = []
    for some in tqdm(images.split(64), "CLIP", leave=False):
        pixels = processor(images=[*some], return_tensors="pt", do_rescale=False)
        parts.append(_embedding(model.get_image_features(**pixels)))
    tokens = processor(text=prompts, return_tensors="pt", padding=True)
    return torch.cat(parts), _embedding(model.get_text_features(**tokens))


def _embedding(output: Any) -> Tensor:
    """Return the tensor, which newer releases of transformers have in an output."""
    found: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return found


def _by_open_clip(
    open_clip: Any, images: Tensor, prompts: list[str], name: str
) -> tuple[Tensor, Tensor]:
    weights = None if ":" in name else "openai"  # "hf-hub:..." and "local-dir:..." bring theirs
    model, _, prepare = open_clip.create_model_and_transforms(name, pretrained=weights)
    model.eval()
    parts = []
    for some in tqdm(images.split(64), "CLIP", leave=False):
        pixels = torch.stack([prepare(image_ops.to_pil_image(image)) for image in some])
        parts.append(model.encode_image(pixels))
    return torch.cat(parts), model.encode_text(open_clip.get_tokenizer(name)(prompts))


def by_network(
    other: TensorDataset, images: Tensor, classes: int, epochs: int
) -> tuple[Tensor, Tensor]:
    """Train a network on other images; return its features of these and its last layer's rows."""
    torch.manual_seed(1000)
    *layers, head = network(images.shape[1], classes).children()
    body = nn.Sequential(*layers)
    _fit(nn.Sequential(body, head), DataLoader(other, batch_size=64, shuffle=True), epochs)
    body.eval()
    with torch.no_grad():
        features = torch.cat([body(part) for part in images.split(500)])
    return features, head.state_dict()["weight"]


def _fit(model: nn.Module, loader: DataLoader[Any], epochs: int) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
        scheduler.step()


def train(problem: Problem, evidence: Evidence, method: str, epochs: int, seed: int) -> nn.Module:
    """Train one network. This is the loop that a user of augloader writes."""
    torch.manual_seed(seed)
    strategy, fraction, base = METHODS[method] or (Uniform(), 1.0, "full")
    data = WeightedAugmentedDataset(problem.train, weak=problem.weak)
    sampler = CoresetSampler(
        data,
        strategy,
        fraction=fraction,
        base=base,
        refresh=Every(None, warmup=epochs if METHODS[method] is None else 0),
        weighting="uniform",
        seed=seed,
    )
    loader = DataLoader(data, batch_size=64, sampler=sampler)
    strong = AdaptiveStrengthTransform(problem.strong, seed=seed)
    model = network(problem.train.tensors[0].shape[1], len(problem.classes))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        if sampler.refresh_due:
            sampler.refresh(evidence)  # the other model does not change: once
        for batch in loader:
            logits = model(strong(batch.input, batch.strength))
            loss = F.cross_entropy(logits, batch.target, reduction="none")
            optimizer.zero_grad()
            (loss * batch.weight).mean().backward()
            optimizer.step()
        scheduler.step()
    return model


def wrong_share(method: str, evidence: Evidence, wrong: Tensor, seed: int) -> float:
    """Return the share of wrong labels among the samples that a method augments."""
    strategy, fraction, _ = METHODS[method] or (Uniform(), 0.0, "full")
    count = round(fraction * evidence.n)
    if not count:
        return 0.0
    chosen = strategy.select(evidence, count, generator=np.random.default_rng(seed)).indices
    return float(wrong[chosen].float().mean())


def halved(problem: Problem) -> TensorDataset:
    """Leave the problem every other training image, and return those between them."""
    images, labels = problem.train.tensors
    problem.train = TensorDataset(images[::2], labels[::2])
    return TensorDataset(images[1::2], labels[1::2])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, help="image folder with train/ and test/")
    parser.add_argument("--images", type=int, default=1200, help="training images, in two halves")
    parser.add_argument("--size", type=int, default=32, help="side of the folder's images")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--clip", nargs="?", const="", metavar="NAME", help="agreement with CLIP, or this one"
    )
    parser.add_argument("--prompt", default="a photo of a {}", help="of a class, for CLIP")
    parser.add_argument("--json", type=Path, help="write every run's figures to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)  # the images are small: more threads only get in each other's way
    problem = folder(args.data, args.images, args.size) if args.data else digits(args.images)
    other = halved(problem)
    images = problem.train.tensors[0]
    if args.clip is None:
        embedded = by_network(other, images, len(problem.classes), args.epochs)
    else:
        prompts = [args.prompt.format(name) for name in problem.classes]
        embedded = by_clip(images, prompts, args.clip)
    wrong = mislabel(problem, NOISE)
    evidence = evidence_of(*embedded, problem.train.tensors[1])
    assert evidence.scores is not None
    last = agreement(*embedded, problem.train.tensors[1]).argsort()[: int(wrong.sum())]
    found, count = int(wrong[last].sum()), int(wrong.sum())
    print(
        f"{len(images)} training images, {count} with a wrong label. Of the {count} of least "
        f"agreement {found} are mislabelled: {found / max(count, 1):.1%} of them are found."
    )
    test, labels = problem.test.tensors
    views = transformed_views(test)
    runs: dict[str, list[Run]] = {name: [] for name in METHODS}
    for name, seed in tqdm([(name, seed) for seed in range(args.seeds) for name in METHODS]):
        started = time.perf_counter()
        model = train(problem, evidence, name, args.epochs, seed)
        seconds = time.perf_counter() - started
        clean = accuracy(model, test, labels)
        transformed = mean(accuracy(model, view, labels) for view in views)
        runs[name].append(
            Run(clean, transformed, wrong_share(name, evidence, wrong, seed), seconds)
        )
    heads = {"clean": "clean", "transformed": "transformed", "wrong": "wrong labels"}
    conclude("augmented", heads, runs, args.json)


if __name__ == "__main__":
    main()
