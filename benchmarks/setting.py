"""Under what the tables are trained: a data set, a schedule, and a strong augmentation.

Each has its own folder or files of results, so that none ever meets another's.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import networks
import torch
from records import RESULTS
from schedules import SCHEDULES, Schedule
from sources import KINDS, SIZES, Source
from tables import TABLES, Row, Table
from torchvision import models

POLICIES: dict[str, dict[str, Any]] = {
    name: {"policy": name}
    for name in ("rand", "auto", "augmix", "cutout", "auto+cutout", "perturb")
}
SEVERAL = {"googlenet", "inception_v3"}  # of torchvision's, which return more than logits
OURS = ("resnet8",)  # networks in whose tables the papers' numbers stand all the same
# Wu et al. (2020): the 4 hardest of 8.
POLICIES["highest-loss"] = {"policy": "trivial", "hardest": 8, "keep": 4}


@dataclass(frozen=True)
class Setting:
    """What the tables are trained under.

    Attributes:
        data: name of the data set, and of the folder of its results.
        schedule: of all methods.
        policy: of the rows that have "trivial", the usual one.
        output: folder of all results.
    """

    data: str
    schedule: Schedule
    policy: str = "trivial"
    output: Path = RESULTS

    @property
    def folder(self) -> Path:
        """Where the schedules' folders are."""
        return self.output / self.data

    @property
    def suffix(self) -> str:
        """What the names of methods with another strong augmentation end in."""
        return "" if self.policy == "trivial" else f"-{self.policy.replace('+', '-')}"

    def row(self, row: Row, paper: bool) -> Row:
        """Return a row under this augmentation; the paper's numbers where they are of the same."""
        method = row.method
        if self.policy != "trivial" and method.policy == "trivial" and method.strategy is not None:
            method = replace(method, name=method.name + self.suffix, **POLICIES[self.policy])
        return replace(row, method=method, paper=row.paper if paper else "")

    def table(self, name: str) -> Table:
        """Return a table under this setting."""
        table = TABLES[name]
        networks = {*table.networks, *OURS}
        paper = (self.data, self.policy) == (table.data, table.policy) and networks.issuperset(
            self.schedule.networks
        )
        return replace(table, rows=tuple(self.row(row, paper) for row in table.rows))


def at_least(least: int) -> Callable[[str], int]:
    """Return what makes an option's text an integer of some size, or raises with words to show."""

    def convert(text: str) -> int:
        if not text.lstrip("-").isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be an integer of at least {least}, got {text}")
        return int(text)

    return convert


def _above_zero(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text}")
    return value


def _file(text: str) -> Path:
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"must be a file that is there, got {text}")
    return Path(text)


def _network(text: str) -> str:
    known = {*networks.OWN, *models.list_models(module=models)} - SEVERAL
    if text not in known:
        raise argparse.ArgumentTypeError(
            f"must be {', '.join(networks.OWN)} or one of torchvision.models with one output, got "
            f"{text}"
        )
    return text


def device_of(parser: argparse.ArgumentParser, name: str) -> torch.device:
    """Return the device of this name, or end with what is wrong with it."""
    try:
        device = torch.device(name)
    except RuntimeError:
        parser.error(f"argument --device: must be cpu or cuda, got {name}")
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("argument --device: must be there, got cuda without a GPU. Take cpu")
    return device


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what a setting is made of to a command's options."""
    add = parser.add_argument_group("setting").add_argument
    add("--dataset", choices=KINDS, default="folder", help="(folder: with train/ and test/)")
    add("--name", help="of the data set in the results (the data set's, or its folder's)")
    add("--schedule", choices=SCHEDULES, help="(reduced; paper on a GPU)")
    add("--network", type=_network, help="other than the schedule's: see benchmarks/networks.py")
    add("--weights", type=_file, help="file of the network's first weights")
    add(
        "--size",
        type=at_least(1),
        help="pixels a side (32; of tinyimagenet 64, norb 48, others 224)",
    )
    add("--epochs", type=at_least(1), help="other than the schedule's")
    add("--per-class", type=at_least(1), help="training images of a class")
    add("--rate", type=_above_zero, help="other than the schedule's")
    add("--refresh", type=at_least(1), help="R, epochs between selections")
    add("--policy", choices=["trivial", *POLICIES], default="trivial", help="strong augmentation")
    add("--output", type=Path, default=RESULTS)


def planned(schedule: Schedule, options: argparse.Namespace) -> Schedule:
    """Return the schedule as the options change it, under a name of its own."""
    changes: dict[str, tuple[str, Callable[[Any], Any]]] = {
        "network": ("networks", lambda name: (name, name)),
        "weights": ("weights", str),
        "size": ("size", int),
        "epochs": ("epochs", int),
        "per_class": ("per_class", int),
        "rate": ("rate", float),
        "refresh": ("refresh", int),
    }
    said = {"network": "{}", "weights": "from-{}", "size": "{}px", "epochs": "{}-epochs"}
    said |= {"per_class": "{}-a-class", "rate": "rate-{:g}", "refresh": "every-{}"}
    for option, (attribute, convert) in changes.items():
        value = getattr(options, option)
        if value is not None:
            changed = replace(schedule, **{attribute: convert(value)})
            shown = f"{value.stem}-{changed.origin:08x}" if option == "weights" else value
            schedule = replace(changed, name=f"{schedule.name}-{said[option].format(shown)}")
    return schedule


def source_of(options: argparse.Namespace, data: Path) -> Source:
    """Return the data set that the options name."""
    kind = options.dataset
    name = options.name or (data.resolve().name if kind == "folder" else kind)
    size = options.size or SIZES.get(kind, 32)
    return Source(name, kind, data, size, getattr(options, "download", False))
