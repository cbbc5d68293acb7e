"""Train a CIFAR ResNet on an image folder, strongly augmenting a small, well-chosen part of it.

    python examples/train.py --data DIR --strategy coreset --fraction 0.3

DIR holds train/ and test/ with one folder a class. Network and training are those of He et al.
(2016), section 4.2. What is augloader's is in ``main``; the rest is a plain training script.
"""

import argparse
import json
import os
import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
import torch.nn.functional as F
from cifar import DEPTHS, Images, ResNet, mean_and_std, read
from torch import nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2

import augloader
from augloader.augment.pairs import PAIRS
from augloader.feedback import StrengthRule
from augloader.labels import mislabelled
from augloader.loading import Weighting

STRATEGIES: dict[str, augloader.Strategy] = {
    "coreset": augloader.FacilityLocation(),
    "maxloss": augloader.Rank(augloader.Loss()),
    "loss": augloader.Proportional(augloader.Loss()),
    "influence": augloader.Proportional(augloader.Influence()),
    "uniform": augloader.Uniform(),
    "full": augloader.Uniform(),  # of fraction 1: every sample gets strong copies
    "none": augloader.Uniform(),  # never asked: its warm-up lasts to the end
}
FREE = ("coreset", "maxloss", "loss")  # may select by what training reported
STRENGTHS: dict[str, StrengthRule] = {
    "constant": augloader.Constant(),
    "sada": augloader.StableInfluence(),
    "entropy": augloader.Entropy(),
    "lossrank": augloader.LossRank(),
    "confidence": augloader.Confidence(),
}


@torch.inference_mode()
def evaluate(model: nn.Module, data: Images, device: torch.device) -> float:
    model.eval()
    batches = zip(data.images.split(128), data.labels.split(128), strict=True)
    right = [int((model(x.to(device)).argmax(1).cpu() == y).sum()) for x, y in batches]
    return sum(right) / len(data)


@contextmanager
def timed(record: dict[str, Any], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    record[name] = time.perf_counter() - start


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Train as the command line says; return what ``--output`` writes."""
    args = parse(argv)
    device, cuda = torch.device(args.device), args.device.startswith("cuda")
    rng = np.random.default_rng(args.seed)  # for the data alone: the same under every strategy
    train_set = read(args.data / "train", rng, args.size, args.limit, args.imbalance)
    test_set = read(args.data / "test", rng, args.size)
    if train_set.classes != test_set.classes:
        raise SystemExit("train/ and test/ must hold folders of the same names")
    classes = len(train_set.classes)
    train_set.labels = mislabelled(train_set.labels, args.label_noise, classes, rng)

    torch.manual_seed(args.seed)  # initial weights, and without --workers crops and flips
    gen = torch.Generator().manual_seed(int(torch.randint(2**62, ())))  # of the workers
    model = ResNet(DEPTHS[args.arch], classes, *mean_and_std(train_set.images)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), args.lr, momentum=0.9, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda epoch: 0.1 ** sum(epoch >= part * args.epochs for part in (0.5, 0.75))
    )

    weak = v2.Compose([v2.RandomCrop(args.size, padding=4), v2.RandomHorizontalFlip()])
    data = augloader.WeightedAugmentedDataset(train_set, weak=weak)
    sampler = augloader.CoresetSampler(
        data,
        STRATEGIES[args.strategy],
        fraction=args.fraction,
        count=args.count,
        base=args.base,
        copies=args.copies,
        refresh=augloader.Every(args.refresh, args.warmup),
        weighting=args.weighting,
        strength=STRENGTHS[args.strength],
        epochs=args.epochs,
        strength_schedule=augloader.SwitchOff(args.refined),
        keep_unaugmented_copies=args.base == "none" or not args.refined,
        pad_to_multiple_of=args.batch,  # no step of a few rows, as large as any other
        seed=args.seed,
    )
    loader = DataLoader(
        data, args.batch, sampler=sampler, num_workers=args.workers, generator=gen, pin_memory=cuda
    )
    options: dict[str, Any] = {"dataset": args.dataset} if args.policy == "auto" else {}
    strong = augloader.AdaptiveStrengthTransform(args.policy, seed=args.seed, **options)
    state = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    state |= {"sampler": sampler, "table": sampler.table}
    records = resume(args, state, gen) if args.resume else []

    for epoch in range(len(records), args.epochs):
        record = {"epoch": epoch, "lr": scheduler.get_last_lr()[0], "sweep_s": 0.0, "select_s": 0.0}
        sampler.set_epoch(epoch)
        record["refreshed"] = sampler.refresh_due
        if sampler.refresh_due:
            evidence = None  # then what training reported is taken
            if sampler.strategy.needs and not args.free_refresh:
                with timed(record, "sweep_s"):
                    last = args.proxy == "lastlayer"
                    proxy = augloader.LastLayerGradient() if last else augloader.Residual()
                    evidence = augloader.sweep(
                        model, data, proxy, batch_size=args.batch, autocast=args.autocast
                    )
            with timed(record, "select_s"):
                sampler.refresh(evidence)

        with timed(record, "train_s"):
            total = torch.zeros((), device=device)
            model.train()
            for batch in loader:
                batch = strong(batch.to(device))
                with torch.autocast(device.type, torch.bfloat16, enabled=args.autocast):
                    logits = model(batch.input)
                loss = F.cross_entropy(logits.float(), batch.target, reduction="none")
                (loss * batch.weight).mean().backward()
                optimizer.step()
                optimizer.zero_grad()
                sampler.report(batch, loss=loss, logits=logits)
                total += (loss.detach() * batch.weight).sum()
            scheduler.step()

        with timed(record, "eval_s"):
            record["accuracy"] = evaluate(model, test_set, device)
        record |= {"loss": total.item() / len(sampler), "draws": len(sampler)}
        record["selected"] = len(sampler.selection) if sampler.selection else 0
        records.append(record)
        show(record)
        if args.checkpoint:
            save(args, state, gen, records)
    return summary(args, records)


def save(args: Any, state: dict[str, Any], gen: torch.Generator, records: list[Any]) -> None:
    """Write all that the next epoch depends on; the file is always a whole one."""
    saved = {name: part.state_dict() for name, part in state.items()}
    saved |= {"random": (torch.get_rng_state(), gen.get_state())}
    torch.save(saved | {"records": records, "options": options(args)}, f"{args.checkpoint}.part")
    os.replace(f"{args.checkpoint}.part", args.checkpoint)


def resume(args: Any, state: dict[str, Any], gen: torch.Generator) -> list[Any]:
    """Go on from a checkpoint; return the records of its epochs."""
    saved = torch.load(args.resume, map_location="cpu")
    differ = [k for k, v in options(args).items() if saved["options"].get(k) != v]
    if differ:
        raise SystemExit(f"--resume needs the options of the saved run, others are {differ}")
    for name, part in state.items():
        part.load_state_dict(saved[name])
    torch.set_rng_state(saved["random"][0])
    gen.set_state(saved["random"][1])
    return list(saved["records"])


def options(args: Any) -> dict[str, Any]:
    """Return the options that the result depends on."""
    others = ("data", "output", "checkpoint", "resume", "device")
    return {name: value for name, value in vars(args).items() if name not in others}


def summary(args: Any, records: list[Any]) -> dict[str, Any]:
    """Print the end of the run and write ``--output``."""
    total = {k: sum(r[k] for r in records) for k in ("train_s", "sweep_s", "select_s", "draws")}
    total |= {"best": max(r["accuracy"] for r in records), "last": records[-1]["accuracy"]}
    total["memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # on Linux
    total["gpu_mib"] = torch.cuda.max_memory_allocated() / 2**20
    show(total)
    result = {"options": vars(args), "torch": torch.__version__, "epochs": records, "total": total}
    if args.output:
        args.output.write_text(json.dumps(result, indent=1, default=str))
    return result


def show(values: dict[str, Any]) -> None:
    print("  ".join(f"{k} {round(v, 4)}" for k, v in values.items()), flush=True)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line and refuse what does not go together."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder with train/ and test/, a folder a class")
    add("--arch", choices=DEPTHS, default="resnet20")
    add("--strategy", choices=STRATEGIES, default="coreset", help="none: weak augmentation only")
    add("--proxy", choices=("residual", "lastlayer"), help="of the coreset (residual)")
    add("--fraction", type=float, help="share of the data to select (0.3)")
    add("--count", type=int, help="number of samples to select")
    add("--base", choices=("full", "random", "selected", "none"), help="un-augmented part (full)")
    add("--weighting", choices=get_args(Weighting), default="cluster", help="(cluster)")
    add(
        "--policy",
        choices=get_args(augloader.PolicyName),
        default="trivial",
        help="strong augmentation (trivial)",
    )
    add("--dataset", choices=tuple(PAIRS), help="whose policy --policy auto takes (cifar10)")
    add("--strength", choices=STRENGTHS, default="constant", help="of each sample (constant)")
    add("--copies", type=int, help="strong copies a selected sample (1); 0 augments in place")
    add("--refresh", type=int, help="epochs between selections (20)")
    add("--warmup", type=int, help="epochs before the first selection (0)")
    add("--free-refresh", action="store_true", help="select by what training reported: no sweep")
    add("--label-noise", type=float, default=0.0, help="share of wrong training labels")
    add("--imbalance", type=float, default=1.0, help="largest class / smallest class")
    add("--refined", type=int, default=0, help="last epochs without strong augmentation (0)")
    add("--lr", type=float, default=0.1, help="(0.1)")
    for name, value in {"epochs": 200, "batch": 128, "size": 32, "seed": 0, "workers": 0}.items():
        add(f"--{name}", type=int, default=value, help=f"({value})")
    add("--limit", type=int, help="number of training images")
    add("--device", default="auto", help="a GPU where there is one")
    add("--autocast", action="store_true", help="bfloat16 on a GPU")
    add("--output", type=Path, help="JSON record of the run")
    add("--checkpoint", type=Path, help="written after each epoch")
    add("--resume", type=Path, help="checkpoint to go on from")
    args = parser.parse_args(argv)
    if args.device == "auto":
        args.device = "cuda" if torch.cuda.is_available() else "cpu"
    proxy = "lastlayer" if args.strategy == "influence" else "residual"
    defaults = {"proxy": proxy, "base": "full", "copies": 1, "refresh": 20, "warmup": 0}
    given = [k for k in (*defaults, "fraction", "count") if getattr(args, k) is not None]
    args.__dict__ |= {k: v for k, v in defaults.items() if k not in given}
    budgets = [k for k in given if k in ("fraction", "count")]
    kind, free = args.strategy, args.free_refresh
    wrong = {
        f"--strategy none selects nothing: leave out {given}": kind == "none" and given,
        f"--strategy full takes all samples: leave out {budgets}": kind == "full" and budgets,
        "--fraction and --count exclude each other": len(budgets) == 2,
        "--fraction must be in (0, 1]": "fraction" in given and not 0 < args.fraction <= 1,
        "--proxy needs --strategy coreset": "proxy" in given and kind != "coreset",
        f"--free-refresh: {kind} needs no sweep, or features": free and kind not in FREE,
        "--free-refresh needs --base full, to know every sample": free and args.base != "full",
        "--free-refresh needs --warmup 1 or more": free and args.warmup < 1,
        "--free-refresh knows no --proxy lastlayer": free and args.proxy == "lastlayer",
        "--dataset needs --policy auto": args.dataset and args.policy != "auto",
        "--autocast needs a GPU": args.autocast and args.device == "cpu",
        "--label-noise must be in [0, 1]": not 0 <= args.label_noise <= 1,
        "--imbalance and --epochs must be 1 or more": min(args.imbalance, args.epochs) < 1,
        "--refined must be 0 to --epochs": not 0 <= args.refined <= args.epochs,
    }
    args.dataset = args.dataset or "cifar10"
    for message in (message for message, found in wrong.items() if found):
        parser.error(message)
    if kind == "none":
        args.warmup = args.epochs
    if not budgets:
        args.fraction = 1.0 if kind == "full" else 0.3
    return args


if __name__ == "__main__":
    main()
