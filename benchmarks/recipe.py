"""How a run of the papers' tables is trained: the same loop for every method.

A run is a problem (which images and labels), a schedule (network, epochs, rate) and a method (what
augloader does), with a seed. Images lie on the device as uint8; crops, flips and strong
augmentation are made there, a chunk of batches at a time, in bfloat16 and channels last. The random
numbers of an image's augmentation follow from the seed and its own draw.
"""

from __future__ import annotations

import sys
import zlib
from array import array
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

sys.path.append(str(Path(__file__).parents[1] / "examples"))

from cifar import DEPTHS, Images, ResNet, add_noise, mean_and_std, read

from augloader import (
    AdaptiveStrengthTransform,
    Constant,
    CoresetSampler,
    CutMix,
    Every,
    Evidence,
    HardestOf,
    LastLayerGradient,
    ManifoldMixup,
    Mixup,
    Residual,
    Sample,
    Strategy,
    SwitchOff,
    Uniform,
    WeightedAugmentedDataset,
    collate,
    sweep,
)
from augloader.core.keyed import uniforms
from augloader.core.schedule import Schedule as Schedules
from augloader.feedback import StrengthRule
from augloader.loading import Base, Weighting
from augloader.selection import Pruning

PAD = 4  # pixels on each side, of which random crops are cut
REFINED = 0.2  # share of the epochs, the last ones, without strong augmentation
GAMMA = 1.0  # of Beta, for all kinds of mixing; He et al. (2019), section 4.1
CUTMIX = 0.5  # probability, the same
CHUNK = 64  # batches fetched and augmented at once on a GPU
VERSION = 1  # of this file's meaning: change it with anything that results depend on
PHASES = ("load", "augment", "train", "sweep", "select", "evaluate")


@dataclass(frozen=True)
class Problem:
    """CIFAR-10 with a share of wrong labels, or a long tail: largest class / smallest class."""

    name: str
    noise: float = 0.0
    imbalance: float = 1.0


@dataclass(frozen=True)
class Schedule:
    """What all methods share: data set's size, network, epochs, rate and refresh interval.

    Attributes:
        name: folder of the results.
        per_class: training images of the largest class; None takes all.
        networks: of the balanced problems, and of those with a long tail.
        rates: knots (share of the training, rate) of a piecewise linear rate; or the first rate and
            the shares at which it is divided by 10.
        small_batch: batch size where the subset alone is trained on.
        refresh: R, epochs between selections.
    """

    name: str
    per_class: int | None
    networks: tuple[str, str]
    epochs: int
    batch: int
    small_batch: int
    refresh: int
    rate: float
    shape: Literal["one-cycle", "steps"]
    decay: float
    nesterov: bool

    def rate_at(self, done: float) -> float:
        """Return the learning rate when a share of the training is done."""
        if self.shape == "steps":
            return self.rate * 0.1 ** ((done >= 0.5) + (done >= 0.75))
        return float(self.rate * np.interp(done, [0, 0.25, 1], [0.1, 1, 0.001]))


PAPER = Schedule(
    "paper", None, ("resnet20", "resnet32"), 200, 128, 128, 20, 0.1, "steps", 1e-4, False
)
SMALL = ("resnet8", "resnet8")
# As many steps in fewer epochs hardly overfit, and strong augmentation gains nothing: see "short".
REDUCED = Schedule("reduced", 100, SMALL, 100, 128, 16, 10, 0.2, "one-cycle", 5e-4, True)
SHORT = Schedule("short", 500, SMALL, 30, 128, 16, 5, 0.2, "one-cycle", 5e-4, True)
# The best accuracy at each cost: 1,000 epochs of 1,000 images are all of it.
FRONTIER = replace(REDUCED, name="frontier", epochs=1000)
LARGER = replace(FRONTIER, name="frontier-5000", per_class=500, epochs=200)  # as many rows
SCHEDULES = {schedule.name: schedule for schedule in (PAPER, REDUCED, SHORT, FRONTIER, LARGER)}


@dataclass(frozen=True)
class Method:
    """What augloader is asked for.

    Attributes:
        name: of the file that has its results.
        strategy: None never augments strongly.
        fraction: share of the data to select; or
        per_class: number of images to select for each class, on average.
        proxy: what FacilityLocation sees.
        free: select by what training reported, after a first period with a sweep.
        copies: 0 augments in place.
        refresh: None takes the schedule's.
        policy: strong augmentation, such as "trivial", or several one after the other, as
            "auto+cutout"; None: strong draws are cropped and flipped as all are, and mixed.
        refined: whether the last epochs are without strong augmentation; where there is none
            anyway, without crops and flips.
        epochs: share of the schedule's epochs.
        rate: other than the schedule's; None takes it.
        rows: batch size, other than the schedule's; None takes it.
        hardest: of how many versions of a strong row the one of highest loss is trained on; None:
            of one. Each version's forward pass counts as a third of a row.
    """

    name: str
    strategy: Strategy | None = None
    fraction: Schedules | float | None = None
    per_class: int | None = None
    base: Base | Pruning | Strategy = "full"
    base_fraction: Schedules | float | None = None
    copies: int = 1
    weighting: Weighting = "cluster"
    proxy: Literal["residual", "last layer"] = "residual"
    free: bool = False
    refresh: int | None = None
    strength: StrengthRule = Constant()  # noqa: RUF009 - frozen
    policy: str | None = "trivial"
    mix: Literal["mixup", "manifold", "cutmix"] | None = None
    refined: bool = False
    epochs: float = 1.0
    rate: float | None = None
    rows: int | None = None
    hardest: int | None = None

    def batch(self, schedule: Schedule) -> int:
        """Return the batch size."""
        if self.rows is not None:
            return self.rows
        return schedule.small_batch if self.base == "selected" else schedule.batch

    def last(self, epochs: int) -> int:
        """Return how many epochs refine."""
        return round(REFINED * epochs) if self.refined else 0

    def planned(self, schedule: Schedule) -> int:
        """Return for how many epochs it is trained."""
        return max(1, round(schedule.epochs * self.epochs))

    def sampler(self, data: Any, schedule: Schedule, classes: int, seed: int) -> CoresetSampler:
        """Return the sampler of a run."""
        epochs = self.planned(schedule)
        whole = self.fraction == 1  # then nothing is chosen
        every = Every(None if whole else self.refresh or schedule.refresh)
        if self.strategy is None:
            every = Every(None, warmup=epochs)
        count = None if self.per_class is None else self.per_class * classes
        return CoresetSampler(
            data,
            self.strategy or Uniform(),
            fraction=(self.fraction or 1.0) if count is None else None,
            count=count,
            base=self.base,
            base_fraction=self.base_fraction,
            copies=self.copies,
            refresh=every,
            weighting=self.weighting,
            strength=self.strength,
            epochs=epochs,
            strength_schedule=SwitchOff(self.last(epochs)),
            keep_unaugmented_copies=self.base == "none",
            pad_to_multiple_of=self.batch(schedule),  # no step of a few rows, as large as any other
            seed=seed,
        )


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
    """

    accuracy: float
    loss: float
    rows: int
    swept: int
    strength: float
    data: int
    seconds: dict[str, float]


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


def images(data: Path, problem: Problem, schedule: Schedule) -> tuple[Images, Images]:
    """Decode a problem's training and test images, the same ones for every method and seed."""
    rng = np.random.default_rng(0)
    size = {"imbalance": problem.imbalance, "per_class": schedule.per_class}
    train, test = read(data / "train", rng, **size), read(data / "test", rng)  # type: ignore[arg-type]
    if train.classes != test.classes:
        raise SystemExit("train/ and test/ must hold folders of the same names")
    train.labels = add_noise(train.labels, problem.noise, len(train.classes), rng)
    return train, test


def crop_and_flip(pixels: Tensor, keys: Tensor, seed: int) -> Tensor:
    """Cut a random window out of each padded image, half of them mirrored; uint8, any device."""
    own = seed + 2**32  # other numbers than strong augmentation draws of the same keys
    drawn = torch.from_numpy(uniforms(own, keys.numpy(), 3)).to(pixels.device)
    top, left = (drawn[:, :2] * (2 * PAD + 1)).long().unbind(1)
    padded = F.pad(pixels, (PAD,) * 4)
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
        given: tuple[Images, Images],
        device: torch.device,
    ) -> None:
        if method.rate is not None:
            schedule = replace(schedule, rate=method.rate)
        self.schedule, self.method, self.seed, self.device = schedule, method, seed, device
        train, self.test = given
        classes = len(train.classes)
        torch.manual_seed(seed)
        depth = DEPTHS[schedule.networks[problem.imbalance > 1]]
        network = ResNet(depth, classes, *mean_and_std(train.images))
        self.model = network.to(device).to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            schedule.rate,
            momentum=0.9,
            nesterov=schedule.nesterov,
            weight_decay=schedule.decay,
            fused=device.type == "cuda",
        )
        self.columns = train.images.to(device), train.labels.to(device)
        self.data = WeightedAugmentedDataset(TensorDataset(*self.columns))
        self.sampler = method.sampler(self.data, schedule, classes, seed)
        names = method.policy.split("+") if method.policy else []
        self.strong = [strong(name, seed + i * 2**33) for i, name in enumerate(names)]
        self.hardest = None
        if method.hardest is not None:
            (versions,) = self.strong
            self.hardest = HardestOf(versions, candidates=method.hardest, autocast=True)
        self.looked_at = 0  # versions of strong rows
        self.epochs = method.planned(schedule)
        self.cropped = SwitchOff(0 if method.strategy else method.last(self.epochs))
        self.mixer = self._mixer(classes)
        self.batch = method.batch(schedule)
        self.view = 2048 if device.type == "cuda" else 128  # images a forward pass
        self.clock = Clock(device)
        self.strengths = array("f")  # of all strong draws
        pixels, labels = train.images.numpy().data, train.labels.numpy().data
        self.checksum = zlib.crc32(labels, zlib.crc32(pixels))
        if device.type == "cuda" and method.mix != "manifold":  # whose hooks need Python
            self.forward = torch.compile(self.forward, mode="reduce-overhead")  # type: ignore[method-assign]

    def _mixer(self, classes: int) -> Mixup | CutMix | ManifoldMixup | None:
        mix, seed = self.method.mix, self.seed
        if mix == "manifold":
            blocks = [f"body.{i}" for i in range(3, len(self.model.body))]
            layers = ["", *blocks[: 2 * len(blocks) // 3]]  # the input, and two stages of blocks
            return ManifoldMixup(self.model, layers, classes, GAMMA, seed=seed)
        if mix == "cutmix":
            return CutMix(classes, GAMMA, probability=CUTMIX, seed=seed)
        return None if mix is None else Mixup(classes, GAMMA, seed=seed)

    def forward(self, pixels: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        """Return the mean weighted loss, every row's and the logits."""
        with torch.autocast(self.device.type, torch.bfloat16):
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
        pixels, labels = (column[rows.to(self.device)] for column in self.columns)
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
        loader = iter(DataLoader(self.data, rows, sampler=self.sampler, collate_fn=collate))
        while True:
            with self.clock("load"):
                chunk = next(loader, None)
            if chunk is None:
                return
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
                    rate = self.schedule.rate_at((epoch + seen / draws) / self.epochs)
                    if self.hardest is not None:
                        self.looked_at += self.hardest.candidates * int((batch.strength > 0).sum())
                        batch = self.hardest(batch, self.model)
                    loss, *parts = self.step(batch, rate)
                    total += loss * self.batch
                    seen += self.batch
                    found.append(parts)
                # After all steps, for it waits for the GPU:
                losses, logits, mixed = (torch.cat(parts) for parts in zip(*found, strict=True))
                self.sampler.report(chunk._replace(mixed=mixed), loss=losses, logits=logits)
                weighed += float(chunk.weight.sum())
                self.strengths.extend(chunk.strength[chunk.strength > 0].tolist())
        return total.item() / weighed

    def refresh(self) -> int:
        """Select anew; return how many images were swept for it."""
        needs, method, evidence = self.sampler.strategy.needs, self.method, None
        swept = 0
        if needs == {"labels"}:
            evidence = Evidence(len(self.data), labels=self.columns[1])
        elif needs and not (method.free and self.sampler.epoch):
            proxy = Residual() if method.proxy == "residual" else LastLayerGradient()
            with self.clock("sweep"):
                evidence = sweep(
                    self.model,
                    self.data,
                    proxy if "proxies" in needs else None,
                    batch_size=self.view,
                    autocast=True,
                    progress=False,
                )
            swept = evidence.n
        with self.clock("select"):
            self.sampler.refresh(evidence)
        return swept

    def run(self) -> Outcome:
        """Train to the end."""
        rows = swept = 0
        loss = 0.0
        if self.device.type == "cuda":
            self.warm_up()
        for epoch in range(self.epochs):
            self.sampler.set_epoch(epoch)
            if self.sampler.refresh_due:
                swept += self.refresh()
            loss = self.epoch(epoch)
            rows += len(self.sampler)
        with self.clock("evaluate"):
            accuracy = self.accuracy()
        seconds = {name: round(spent, 3) for name, spent in self.clock.seconds.items()}
        strength = float(np.mean(self.strengths)) if self.strengths else 0.0
        rows += round(self.looked_at / 3)
        return Outcome(accuracy, loss, rows, swept, strength, self.checksum, seconds)

    @torch.inference_mode()
    def accuracy(self) -> float:
        """Return the accuracy on the test images, un-augmented."""
        self.model.eval()
        right = 0
        parts = (self.test.images.split(self.view), self.test.labels.split(self.view))
        with torch.autocast(self.device.type, torch.bfloat16):
            for pixels, labels in zip(*parts, strict=True):
                found = self.model(pixels.to(self.device)).argmax(1)
                right += int((found == labels.to(self.device)).sum())
        return right / len(self.test)
