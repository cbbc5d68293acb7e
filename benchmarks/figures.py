"""Draw the papers' figures of what augmentation and selection do to a network in training.

    python benchmarks/figures.py spectrum refined overlap --data DIR

    spectrum    Liu & Mirzasoleiman (2022), Figure 1: how singular values and subspaces of the
                Jacobian change under bounded noise and under augmentation; an MLP and a ResNet
    refined     He et al. (2019), Figures 1 and 3, Table 2: losses on clean and augmented images in
                training, and the spectrum of the features after it, with and without refinement
    overlap     Liu & Mirzasoleiman (2022), section 5.1 and Eq. 8: how much of a coreset has the
                largest losses, and how well it keeps the gradient, beside a random subset

Trained as papers.py does, with its options of a setting. Results lie beside the tables', a JSON and
a picture each, in results/papers/<data set>/<schedule>/figure-*.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import sources
import torch
from common import device_name, environment, guard, progress
from matplotlib.figure import Figure
from method import Method
from papers import FAISS, PACKAGES
from recipe import Trainer, crop_and_flip, pixels_of
from records import commit, describe
from schedules import REDUCED, SCHEDULES
from setting import Setting, add_options, at_least, device_of, planned, source_of
from tables import TABLES
from tables.methods import CLEAN, WEAK
from torch import Tensor

from augloader import LastLayerGradient, Proxies, Residual, Sample, Selection, plot, sweep
from augloader.diagnostics import (
    RiskGap,
    alignment,
    feature_spectrum,
    jacobian_spectrum,
    overlap,
    risk_gap,
)
from augloader.diagnostics.jacobian import range_means

Given = tuple[Any, Any]
TILL = 15  # epochs, of the Jacobian
BOUNDS = (8, 16)  # largest change of a pixel's level, of 255
SHARE = 0.3
SHOWN = ("standard", "Mixup", "AutoAugment, Cutout")
IMAGES = 50  # of the Jacobian
OLDER = {"policy": "trivial", "images": IMAGES}  # what records are of that do not say it
EVERY = 5  # epochs between measured risks


class Bench:
    """What is trained for the figures: images, a setting, a device and a seed."""

    def __init__(self, setting: Setting, given: Given, device: torch.device, seed: int) -> None:
        self.setting, self.given, self.device, self.seed = setting, given, device, seed

    def trainer(self, method: Method, network: str | None = None) -> Trainer:
        """Return what trains a method."""
        schedule = self.setting.schedule
        if network is not None:
            schedule = replace(schedule, networks=(network, network))
        return Trainer(CLEAN, schedule, method, self.seed, self.given, self.device)


# The Jacobian -------------------------------------------------------------------------------------


def versions(bench: Bench, pixels: Tensor) -> dict[str, Tensor]:
    """Return images, (n, 3, H, W) float, with bounded noise, cropped and flipped, and strong."""
    n = len(pixels)
    generator = torch.Generator().manual_seed(bench.seed)
    noise = 2 * torch.rand(pixels.shape, generator=generator) - 1
    keys = torch.stack([torch.zeros(n), torch.arange(n), torch.ones(n)], 1).long()
    made = {f"noise, at most {bound}": (pixels + bound * noise).clamp(0, 255) for bound in BOUNDS}
    made["cropped and flipped"] = crop_and_flip(pixels, keys, bench.seed).float()
    strong = bench.trainer(bench.setting.table("table4").row("all").method).strong
    policy = bench.setting.policy
    label = "TrivialAugment" if policy == "trivial" else policy
    made[label] = made_strong(strong, pixels, keys).float()
    return made


def made_strong(transforms: Sequence[Any], pixels: Tensor, keys: Tensor) -> Tensor:
    """Return images augmented by one policy after the other, at full strength."""
    for transform in transforms:
        pixels = torch.as_tensor(transform(pixels, torch.ones(len(pixels)), keys=keys))
    return pixels


def spectrum(bench: Bench, images: int) -> tuple[dict[str, Any], list[Figure]]:
    """Measure the Jacobians of an MLP and of the schedule's network after some epochs."""
    found: dict[str, Any] = {}
    drawn = []
    pixels = pixels_of(bench.given[0])[:images]
    for network in ("mlp", bench.setting.schedule.networks[0]):
        trainer = bench.trainer(WEAK, network)
        epochs = min(TILL, trainer.epochs)
        for _ in progress(trainer.course(epochs)):
            pass
        model = trainer.model.to(memory_format=torch.contiguous_format)
        spectra = {
            name: jacobian_spectrum(model, pixels.float(), other)
            for name, other in versions(bench, pixels).items()
        }
        drawn.append(plot.jacobian(spectra))
        drawn[-1].suptitle(f"{network}, {len(pixels)} images, after {epochs} epochs")
        found[network] = {
            name: {
                "clean": range_means(one.clean[: int(one.edges[-1])], one.edges).tolist(),
                "change": one.changes().tolist(),
                "relative change": one.changes(relative=True).tolist(),
                "left angle": one.angles("left").tolist(),
                "right angle": one.angles("right").tolist(),
                "perturbation": one.perturbation,
            }
            for name, one in spectra.items()
        }
    return found, drawn


# Refinement ---------------------------------------------------------------------------------------


def as_trained(trainer: Trainer, weak_only: bool = False) -> Callable[[Sample], Sample]:
    """Return what augments a batch's strong rows as the training does."""

    def strong(batch: Sample) -> Sample:
        if not bool((batch.strength > 0).any()):
            return batch
        pixels = crop_and_flip(batch.input, batch.keys.cpu(), trainer.seed)
        if weak_only:
            return batch._replace(input=pixels)
        for transform in trainer.strong:
            pixels = transform(pixels, batch.strength, keys=batch.keys)
        batch = batch._replace(input=pixels)
        if trainer.mixer is None:
            return batch
        return trainer.mixer(batch._replace(input=pixels.float()))  # type: ignore[return-value]

    return strong


def features(trainer: Trainer) -> Any:
    """Return the spectrum of the test images' features."""
    evidence = sweep(
        trainer.model, trainer.test, LastLayerGradient(), batch_size=trainer.view, progress=False
    )
    assert evidence.features is not None
    assert evidence.labels is not None
    return feature_spectrum(evidence.features, evidence.labels)


def refined(bench: Bench) -> tuple[dict[str, Any], list[Figure]]:
    """Measure losses through training, and features after it."""
    rows = [row for row in TABLES["refinement"].rows if row.line in SHOWN]
    found: dict[str, Any] = {}
    spectra, drawn = {}, []
    for row in rows:
        trainer = bench.trainer(row.method)
        history: list[RiskGap] = []
        tested = []
        standard = row.method.strategy is None
        for epoch in progress(trainer.course(trainer.epochs)):
            if (epoch + 1) % EVERY == 0 or epoch == trainer.epochs - 1:
                strong = as_trained(trainer, weak_only=standard)
                history.append(risk_gap(trainer.model, trainer.data, strong, epoch=epoch))
                tested.append(trainer.evaluate(trainer.test))
        weak = risk_gap(trainer.model, trainer.data, as_trained(trainer, True), epoch=0).strong
        spectra[row.label] = features(trainer)
        if row.method.refined and not standard:
            drawn.append(plot.risks(history))
            drawn[-1].suptitle(row.label)
        assert weak is not None
        found[row.label] = {
            "epochs": [risk.epoch for risk in history],
            "clean loss": [risk.clean.loss for risk in history],
            "augmented loss": [risk.strong.loss for risk in history if risk.strong],
            "test loss": [loss for _, loss in tested],
            "test accuracy": [accuracy for accuracy, _ in tested],
            "loss of cropped and flipped images": weak.loss,
            "singular values, all classes": spectra[row.label].all.tolist(),
            "singular values, class 0": spectra[row.label].of_class[0].tolist(),
        }
    for column in ("to the end", "refined"):
        some = {name: one for name, one in spectra.items() if name.startswith(column)}
        drawn.append(plot.features(some, label=0))
        drawn[-1].suptitle(column)
    return found, drawn


# Coresets -----------------------------------------------------------------------------------------


def overlapping(bench: Bench) -> tuple[dict[str, Any], list[Figure]]:
    """Follow coresets through training: which losses they have, and which gradient they keep."""
    trainer = bench.trainer(bench.setting.table("table4").row(f"coreset, {SHARE:.0%}").method)
    rng = np.random.default_rng(bench.seed)
    at, selections, losses, errors = [], [], [], []
    n = len(trainer.data)

    def strong(model: Any, batch: Sample) -> tuple[Tensor, Tensor]:
        keys = torch.stack([torch.zeros_like(batch.index), batch.index, batch.index * 0 + 1], 1)
        return model(made_strong(trainer.strong, batch.input, keys)), batch.target

    options = {"batch_size": trainer.view, "progress": False}
    for epoch in progress(range(trainer.epochs)):
        trainer.sampler.set_epoch(epoch)
        if trainer.sampler.refresh_due:
            evidence = sweep(trainer.model, trainer.data, Residual(), **options)  # type: ignore[arg-type]
            moved = sweep(trainer.model, trainer.data, Residual(), forward=strong, **options)  # type: ignore[arg-type]
            selection = trainer.sampler.refresh(evidence)
            assert evidence.losses is not None
            at.append(epoch)
            selections.append(selection)
            losses.append(evidence.losses)
            k = len(selection)
            chance = torch.from_numpy(rng.choice(n, k, replace=False))
            other = Selection(chance, torch.full((k,), n / k))
            errors.append(measured(evidence.proxies, moved.proxies, selection, other))
        trainer.epoch(epoch)
    shared = overlap(selections, losses)
    drawn = [plot.overlap(shared, at), kept(at, errors)]
    found = {
        "epochs": at,
        "share of the largest losses": shared.shares.tolist(),
        "by chance": shared.chance.tolist(),
        "errors of the gradient": errors,
    }
    return found, drawn


def measured(
    clean: Proxies | None, moved: Proxies | None, coreset: Selection, chance: Selection
) -> dict[str, float]:
    """Return the errors of a coreset and of a random subset, as shares of the gradient's norm."""
    assert clean is not None
    assert moved is not None
    found = {}
    for name, selection in (("coreset", coreset), ("random", chance)):
        one = alignment(clean, selection, moved)
        found[name] = one.error / one.norm
        assert one.augmented_error is not None
        assert one.augmented_norm is not None
        found[f"{name}, augmented"] = one.augmented_error / one.augmented_norm
        if name == "coreset":
            found["bound"] = one.bound / one.norm
    return found


def kept(at: Sequence[int], errors: Sequence[dict[str, float]]) -> Figure:
    """Draw the errors of Eq. 8 through training."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name in errors[0]:
        axes.plot(at, [error[name] for error in errors], marker=".", label=name)
    axes.set(xlabel="epoch", ylabel="error / norm of the gradient", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def save(place: Path, name: str, record: dict[str, Any], drawn: Sequence[Figure]) -> None:
    """Write a figure's numbers and pictures."""
    place.mkdir(parents=True, exist_ok=True)
    file = place / f"figure-{name}.json"
    file.write_text(json.dumps(record, indent=1) + "\n")
    for i, figure in enumerate(drawn):
        figure.savefig(place / f"figure-{name}-{i + 1}.png", dpi=80)


FIGURES = ("spectrum", "refined", "overlap")


def main(argv: Sequence[str] | None = None) -> None:
    lines = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=lines[0], epilog=lines[2], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("figures", nargs="+", choices=FIGURES, metavar="FIGURE", help=", ".join(FIGURES))
    add("--data", type=Path, required=True, help="folder of the images")
    add("--download", action="store_true", help="let torchvision fetch what is missing")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--seed", type=at_least(0), default=0)
    add("--images", type=at_least(1), default=IMAGES, help="of the Jacobian")
    add_options(parser)
    options = parser.parse_args(argv)
    device = device_of(parser, options.device)
    source = source_of(options, options.data)
    usual = SCHEDULES[options.schedule] if options.schedule else REDUCED
    setting = Setting(source.name, planned(usual, options), options.policy, options.output)
    given: Given = sources.images(source, CLEAN, setting.schedule.per_class)
    bench = Bench(setting, given, device, options.seed)
    about = environment(torch.get_num_threads(), PACKAGES + FAISS) | {
        "device": device_name(device),
        "commit": commit(),
    }
    place = setting.folder / setting.schedule.name
    described = {
        "schedule": asdict(setting.schedule) | describe(CLEAN, setting.schedule, WEAK)["schedule"],
        "seed": options.seed,
        "data": sources.checksum(given[0]),
        "policy": options.policy,
    }
    asked = dict.fromkeys(options.figures, described)
    if "spectrum" in asked:
        asked["spectrum"] = described | {"images": options.images}
    for name, own in asked.items():
        file = place / f"figure-{name}{setting.suffix}.json"
        guard(file, own, "Give another --name or --output.", OLDER)
    for name, own in asked.items():
        if name == "spectrum":
            found, drawn = spectrum(bench, options.images)
        else:
            found, drawn = refined(bench) if name == "refined" else overlapping(bench)
        record = own | {"environment": about, "found": found}
        save(place, name + setting.suffix, record, drawn)


if __name__ == "__main__":
    main()
