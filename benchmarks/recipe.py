"""How a run of the papers' tables is trained: the same loop for every method.

A run is a problem (which images and labels), a schedule (network, epochs, rate) and a method (what
augloader does), with a seed. Images lie on the device as uint8, or are read by workers where they
do not fit; crops, flips and strong augmentation are made on the device, a chunk of batches at a
time, channels last and in bfloat16, or float32 on a CPU that would emulate it. The random numbers
of an image's augmentation follow from the seed and its own draw.
"""

from __future__ import annotations

import os
import sys
from array import array
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

sys.path.append(str(Path(__file__).parents[1] / "examples"))

from cifar import Images, mean_and_std
from method import Method
from networks import mixable, network
from schedules import Problem, Schedule
from sources import Files, checksum

from augloader import (
    AdaptiveStrengthTransform,
    CutMix,
    Evidence,
    HardestOf,
    LastLayerGradient,
    ManifoldMixup,
    Mixup,
    Residual,
    Sample,
    SwitchOff,
    WeightedAugmentedDataset,
    collate,
    sweep,
)
from augloader.core.keyed import uniforms
from augloader.core.precision import autocast_dtype

PAD = 1 / 8  # of the side, on each side, of which random crops are cut
GAMMA = 1.0  # of Beta, for all kinds of mixing; He et al. (2019), section 4.1
CUTMIX = 0.5  # probability, the same
CHUNK = 64  # batches fetched and augmented at once on a GPU
WORKERS = 8  # processes that read images which are not held, as many as there are cores at most
SAMPLED = 2000  # of these the mean and standard deviation are taken
VERSION = 1  # of what this file and method.py mean: change it with anything results depend on
DRAWN = ("target", "index", "copy", "epoch", "strength", "weight")
PHASES = ("load", "augment", "train", "sweep", "select", "evaluate")


@dataclass(frozen=True)
class Outcome:
    """What a run gave: accuracy after the last epoch, rows trained on, and seconds by phase.

    Attributes:
        loss: mean over the last epoch's draws.
        rows: images that went through a training step, those of weight 0 too that fill up the last
            batch of each epoch; and a third of those that a forward pass alone chose from.
        swept: images that went through a sweep.
        strength: mean strength of the draws that had any; 0 where none had.
        data: checksum of the training images and labels.
        tested: of the test images and labels; 0 in records of before it was kept.
        curve: of every epoch the "augmented loss"; where it was watched also the "accuracy", and
            the "clean loss" of the training images as they are.
    """

    accuracy: float
    loss: float
    rows: int
    swept: int
    strength: float
    data: int
    seconds: dict[str, float]
    curve: dict[str, list[float]] = field(default_factory=dict)
    tested: int = 0

    @property
    def watched(self) -> bool:
        """Whether every epoch's accuracy was taken."""
        return "accuracy" in self.curve


class Clock:
    """Seconds by phase: of the processor's work here, or of a GPU's until it is done."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self.kind = "wall" if self._cuda else "cpu"
        self.seconds = dict.fromkeys(PHASES, 0.0)

    def now(self) -> float:
        if not self._cuda:
            return process_time()  # other processes on the cores do not count
        torch.cuda.synchronize()
        return perf_counter()

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = self.now()
        yield
        self.seconds[phase] += self.now() - start


def halved(device: torch.device) -> bool:
    """Return whether networks compute in bfloat16, else in float32."""
    return autocast_dtype(device, True) is torch.bfloat16


def crop_and_flip(pixels: Tensor, keys: Tensor, seed: int) -> Tensor:
    """Cut a random window out of each padded image, half of them mirrored; uint8, any device."""
    pad = round(PAD * pixels.shape[-1])
    own = seed + 2**32  # other numbers than strong augmentation draws of the same keys
    drawn = torch.from_numpy(uniforms(own, keys.numpy(), 3)).to(pixels.device)
    top, left = (drawn[:, :2] * (2 * pad + 1)).long().unbind(1)
    padded = F.pad(pixels, (pad,) * 4)
    windows = padded.unfold(2, pixels.shape[2], 1).unfold(3, pixels.shape[3], 1)
    cut = windows[torch.arange(len(pixels), device=pixels.device), :, top, left]
    return torch.where((drawn[:, 2] < 0.5).view(-1, 1, 1, 1), cut.flip(3), cut)


def split(batch: Sample, rows: int) -> Iterator[Sample]:
    """Yield a batch's parts, views of so many rows."""
    fields = batch._asdict().items()
    columns = {k: v.split(rows) for k, v in fields if isinstance(v, Tensor) and v.ndim}
    for parts in zip(*columns.values(), strict=True):
        yield batch._replace(**dict(zip(columns, parts, strict=True)))


def strong(policy: str, seed: int) -> AdaptiveStrengthTransform:
    """Return a strong augmentation as for CIFAR."""
    if policy == "auto":
        return AdaptiveStrengthTransform(policy, dataset="cifar10", seed=seed)
    return AdaptiveStrengthTransform(policy, seed=seed)


class Trainer:
    """One network, its optimizer, and what augloader puts between the images and it."""

    def __init__(
        self,
        problem: Problem,
        schedule: Schedule,
        method: Method,
        seed: int,
        given: tuple[Images | Files, Images | Files],
        device: torch.device,
        watch: bool = False,
        compiled: bool = False,
    ) -> None:
        if method.rate is not None:
            schedule = replace(schedule, rate=method.rate)
        self.schedule, self.method, self.seed, self.device = schedule, method, seed, device
        (self.train, self.test), self.watch = given, watch
        self.halved = halved(device)
        classes = len(self.train.classes)
        torch.manual_seed(seed)
        name = schedule.networks[problem.imbalance > 1]
        some = pixels_of(self.train)
        weights = Path(schedule.weights) if schedule.weights else None
        made = network(name, classes, *mean_and_std(some), some.shape[-1], weights)
        self.model = made.to(device).to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            schedule.rate,
            momentum=0.9,
            nesterov=schedule.nesterov,
            weight_decay=schedule.decay,
            fused=device.type == "cuda",
        )
        self.labels = self.train.labels.to(device)
        self.workers = 0 if isinstance(self.train, Images) else min(WORKERS, os.cpu_count() or 1)
        if isinstance(self.train, Images):
            held = TensorDataset(self.train.images.to(device), self.labels)
        self.data = WeightedAugmentedDataset(self.train if self.workers else held)
        self.sampler = method.sampler(self.data, schedule, classes, seed)
        names = method.policy.split("+") if method.policy else []
        self.strong = [strong(name, seed + i * 2**33) for i, name in enumerate(names)]
        self.hardest = None
        if method.hardest is not None:
            (versions,) = self.strong
            self.hardest = HardestOf(
                versions, candidates=method.hardest, keep=method.keep, autocast=self.halved
            )
        self.looked_at = self.added = 0  # versions of strong rows; rows that became more than one
        self.epochs = method.planned(schedule)
        self.first = method.first(schedule)
        bare = method.bare or method.strategy is None
        self.cropped = SwitchOff(method.last(schedule) if bare else 0)
        self.mixer = self._mixer(classes)
        self.batch = method.batch(schedule)
        self.view = 2048 if device.type == "cuda" else 128  # images a forward pass
        self.clock = Clock(device)
        self.strengths = array("f")  # of all strong draws
        self.rows = self.swept = 0
        self.losses: list[float] = []  # of each epoch
        self.checksums = checksum(self.train), checksum(self.test)
        self.compiled = compiled and method.mix != "manifold"  # whose hooks need Python
        if self.compiled:
            self.forward = torch.compile(self.forward, mode="reduce-overhead")  # type: ignore[method-assign]

    def _mixer(self, classes: int) -> Mixup | CutMix | ManifoldMixup | None:
        mix, seed = self.method.mix, self.seed
        if mix == "manifold":
            return ManifoldMixup(self.model, mixable(self.model), classes, GAMMA, seed=seed)
        if mix == "cutmix":
            return CutMix(classes, GAMMA, probability=CUTMIX, seed=seed)
        if mix is None:
            return None
        fades = self.method.fades(self.schedule)
        if fades is None:
            return Mixup(classes, GAMMA, seed=seed)
        return Mixup(classes, GAMMA, schedule=fades, epochs=self.epochs, seed=seed)

    def forward(self, pixels: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        """Return the mean weighted loss, every row's and the logits."""
        with torch.autocast(self.device.type, torch.bfloat16, self.halved):
            logits = self.model(pixels)
        logits = logits.float()
        losses = F.cross_entropy(logits, target, reduction="none")
        return (losses * weight).mean(), losses, logits

    def mixed(self, batch: Sample) -> AbstractContextManager[Sample]:
        """Return the batch as mixed, for the length of the forward pass."""
        if isinstance(self.mixer, ManifoldMixup):
            return self.mixer(batch)
        return nullcontext(batch if self.mixer is None else self.mixer(batch))

    def step(self, batch: Sample, rate: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Train on a batch; return its loss, and of its rows loss, logits and whether mixed."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with self.mixed(batch) as mixed:
            loss, losses, logits = self.forward(mixed.input, mixed.target, mixed.weight)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        which = torch.as_tensor(mixed.mixed).expand(len(batch.index))
        # A CUDA graph overwrites what it returned.
        return loss.detach(), losses.detach().clone(), logits.detach().clone(), which

    def warm_up(self) -> None:
        """Compile the step for this network, batch and kind of target; the network stays as it was.

        A CUDA graph is recorded in the second call, and replayed from the third on.
        """
        rows = torch.arange(self.batch) % len(self.data)
        pixels = torch.stack([self.data[int(i)].input for i in rows]).to(self.device)
        labels = self.labels[rows.to(self.device)]
        if self.mixer is not None:
            pixels = pixels.float()
        ones = torch.ones(self.batch)
        batch = Sample(pixels, labels, rows, ones.to(self.device), ones)
        before = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.model.train()
        for _ in range(3):
            with self.mixed(batch) as mixed:
                loss, *_ = self.forward(mixed.input, mixed.target, mixed.weight)
            loss.backward()
            self.optimizer.zero_grad()
        self.model.load_state_dict(before)

    def chunks(self, rows: int) -> Iterator[Sample]:
        """Yield the epoch's draws on the device, so many at a time, augmented."""
        loader = iter(
            DataLoader(
                self.data,
                rows,
                sampler=self.sampler,
                collate_fn=collate,
                num_workers=self.workers,
                pin_memory=self.workers > 0 and self.device.type == "cuda",
            )
        )
        while True:
            with self.clock("load"):
                chunk = next(loader, None)
                if chunk is None:
                    return
                if self.workers:
                    pixels, target = (x.to(self.device) for x in (chunk.input, chunk.target))
                    chunk = chunk._replace(input=pixels, target=target)
            with self.clock("augment"):
                pixels = chunk.input
                if self.cropped(self.sampler.epoch, self.epochs):
                    pixels = crop_and_flip(pixels, chunk.keys, self.seed)
                for transform in self.strong if self.hardest is None else ():
                    pixels = transform(pixels, chunk.strength, keys=chunk.keys)
                if self.mixer is not None:
                    pixels = pixels.float()
            yield chunk._replace(input=pixels)

    def epoch(self, epoch: int) -> float:
        """Train for an epoch; return its mean loss."""
        draws, seen, total = len(self.sampler), 0, torch.zeros((), device=self.device)
        weighed = 0.0
        self.model.train()
        for chunk in self.chunks(self.batch * (CHUNK if self.device.type == "cuda" else 1)):
            with self.clock("train"):
                found = []
                for batch in split(chunk._replace(weight=chunk.weight.to(self.device)), self.batch):
                    rate = self.schedule.rate_at((epoch + seen / draws) / self.first)
                    if self.hardest is not None:
                        batch = self.harder(batch)
                    loss, *parts = self.step(batch, rate)
                    total += loss * self.batch
                    seen += self.batch
                    found.append([*(getattr(batch, name) for name in DRAWN), *parts])
                # After all steps, for it waits for the GPU:
                *drawn, losses, logits, mixed = map(torch.cat, zip(*found, strict=True))
                trained = chunk._replace(**dict(zip(DRAWN, drawn, strict=True)), mixed=mixed)
                self.sampler.report(trained, loss=losses, logits=logits)
                weighed += float(chunk.weight.sum())
                self.strengths.extend(chunk.strength[chunk.strength > 0].tolist())
        return total.item() / weighed

    def harder(self, batch: Sample) -> Sample:
        """Return a batch with the hardest versions of its strong rows, and count them."""
        assert self.hardest is not None
        self.looked_at += self.hardest.candidates * int((batch.strength > 0).sum())
        found = self.hardest(batch, self.model)
        self.added += len(found.index) - len(batch.index)
        return found

    def refresh(self) -> int:
        """Select anew; return how many images were swept for it."""
        needs, method, evidence = self.sampler.strategy.needs, self.method, None
        swept = 0
        if needs == {"labels"}:
            evidence = Evidence(len(self.data), labels=self.labels)
        elif needs and not (method.free and self.sampler.epoch):
            proxy = Residual() if method.proxy == "residual" else LastLayerGradient()
            with self.clock("sweep"):
                evidence = sweep(
                    self.model,
                    self.data,
                    proxy if "proxies" in needs else None,
                    batch_size=self.view,
                    num_workers=self.workers,
                    autocast=self.halved,
                    progress=False,
                )
            swept = evidence.n
        with self.clock("select"):
            self.sampler.refresh(evidence)
        return swept

    def course(self, epochs: int) -> Iterator[int]:
        """Train for so many epochs, from the first, and yield each when it is done."""
        for epoch in range(epochs):
            self.sampler.set_epoch(epoch)
            if self.sampler.refresh_due:
                self.swept += self.refresh()
            self.losses.append(self.epoch(epoch))
            self.rows += len(self.sampler)
            yield epoch

    def run(self) -> Outcome:
        """Train to the end."""
        watched = {"accuracy": list[float](), "clean loss": list[float]()}
        if self.compiled:
            self.warm_up()
        for epoch in self.course(self.epochs):
            with self.clock("evaluate"):
                if self.watch:
                    watched["clean loss"].append(self.evaluate(self.train)[1])
                if self.watch or epoch >= self.epochs - self.schedule.median:
                    watched["accuracy"].append(self.evaluate(self.test)[0])
        seconds = {name: round(spent, 3) for name, spent in self.clock.seconds.items()}
        strength = float(np.mean(self.strengths)) if self.strengths else 0.0
        rows = self.rows + self.added + round(self.looked_at / 3)
        accuracy = median(watched["accuracy"][-self.schedule.median :])
        curve = {"augmented loss": self.losses} | (watched if self.watch else {})
        curve = {name: [round(value, 5) for value in values] for name, values in curve.items()}
        data, tested = self.checksums
        return Outcome(
            accuracy, self.losses[-1], rows, self.swept, strength, data, seconds, curve, tested
        )

    @torch.inference_mode()
    def evaluate(self, data: Images | Files) -> tuple[float, float]:
        """Return the accuracy and mean loss on images as they are."""
        self.model.eval()
        right, loss = 0, torch.zeros((), device=self.device)
        parts: Iterable[Any] = DataLoader(data, self.view // 8, num_workers=self.workers)
        if isinstance(data, Images):
            parts = zip(data.images.split(self.view), data.labels.split(self.view), strict=True)
        with torch.autocast(self.device.type, torch.bfloat16, self.halved):
            for pixels, labels in parts:
                logits, target = self.model(pixels.to(self.device)).float(), labels.to(self.device)
                right += int((logits.argmax(1) == target).sum())
                loss += F.cross_entropy(logits, target, reduction="sum")
        return right / len(data), float(loss) / len(data)


def pixels_of(data: Images | Files) -> Tensor:
    """Return (m, 3, H, W) uint8 of all images that are held, else of some, evenly spread."""
    if isinstance(data, Images):
        return data.images
    places = np.unique(np.linspace(0, len(data) - 1, SAMPLED).round().astype(int))
    return torch.stack([data.image(int(place)) for place in places])
