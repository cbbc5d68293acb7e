"""What ranks exchange and hold when they select together: bytes, memory and seconds of each.

    python benchmarks/ranks.py            1, 2, 4 and 8 processes of this machine, under torchrun
    python benchmarks/ranks.py --ray      4 workers of Ray Train as well

Every rank holds a share of the proxies, 64 wide and of 100 classes, and has one thread. Parts:

    coreset      DistributedCoresetSampler.refresh: FacilityLocation of 10 %
    losses       the same of Rank(Loss()), which needs one number a sample
    set_epoch    after an epoch of reports: who reported what, and LossRank's strengths

Bytes are what a rank receives of others: of a gathering all parts but its own, of a reduction its
tensor once, of an exchange the rows that come.
"""

from __future__ import annotations

import argparse
import json
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from common import Reading, environment, machine, measure, progress, save
from torch import Tensor

from augloader import (
    DistributedCoresetSampler,
    Evidence,
    FacilityLocation,
    Loss,
    LossRank,
    Proxies,
    Rank,
    Sample,
)

PACKAGES = ("augloader", "numpy", "numba", "torch", "faiss-gpu", "faiss-cpu", "ray")
CLASSES, WIDE, BATCH = 100, 64, 256
JOBS = [{"n": 10**5, "ranks": ranks} for ranks in (1, 2, 4, 8)]
JOBS += [{"n": n, "ranks": 4} for n in (5 * 10**4, 2 * 10**5)]


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """Count the bytes that collectives bring this rank."""
    came = {"bytes": 0, "calls": 0}
    world, me = dist.get_world_size(), dist.get_rank()
    names = "all_gather_object", "all_reduce", "all_to_all_single"
    kept = [getattr(dist, name) for name in names]

    def put(functions: Sequence[Callable[..., None]]) -> None:
        for name, function in zip(names, functions, strict=True):
            setattr(dist, name, function)

    def add(size: int) -> None:
        came["bytes"] += size
        came["calls"] += 1

    def gather(parts: list[Any], mine: Any, **options: Any) -> None:
        kept[0](parts, mine, **options)
        add(sum(len(pickle.dumps(part)) for rank, part in enumerate(parts) if rank != me))

    def reduce(values: Tensor, *arguments: Any, **options: Any) -> None:
        kept[1](values, *arguments, **options)
        add(values.nbytes if world > 1 else 0)

    def exchange(
        here: Tensor, there: Tensor, counts: list[int], sizes: list[int], **options: Any
    ) -> None:
        kept[2](here, there, counts, sizes, **options)
        add((sum(counts) - counts[me]) * here.shape[1] * here.element_size())

    put([gather, reduce, exchange])
    try:
        yield came
    finally:
        put(kept)


def readings(n: int) -> dict[str, Reading]:
    """Measure the parts on this rank, whose group stands."""
    torch.set_num_threads(1)
    world, me = dist.get_world_size(), dist.get_rank()
    generator = torch.Generator().manual_seed(0)
    means = 2 * torch.randn(CLASSES, WIDE, generator=generator)

    def evidence(size: int) -> Evidence:
        share = torch.arange(me, size, world)
        noise = torch.randn(len(share), WIDE, generator=generator)
        labels = share * CLASSES // size  # so that a class is on all ranks
        losses = torch.rand(len(share), generator=generator)
        proxies = Proxies(noise.add_(means[labels]))
        return Evidence(size, labels, proxies, losses=losses, indices=share)

    def sampler_of(size: int, strategy: Any, **options: Any) -> DistributedCoresetSampler:
        return DistributedCoresetSampler(
            range(size), strategy, fraction=0.1, group=dist.group.WORLD, **options
        )

    def read(call: Callable[[], object]) -> Reading:
        dist.barrier()
        with counted() as came:
            reading = measure(call)[1]
        more = reading["peak_mb"] - reading["base_mb"]
        return {"mb": more, "cpu_seconds": reading["cpu_seconds"], **came}

    found = {}
    for part, strategy in (("coreset", FacilityLocation()), ("losses", Rank(Loss()))):
        sampler_of(1000, strategy).refresh(evidence(1000))  # loops compile, connections open
        sampler, given = sampler_of(n, strategy), evidence(n)
        found[part] = read(lambda: sampler.refresh(given))  # noqa: B023 - called at once
        chosen = sampler.selection.indices
        alike: list[Any] = [None] * world
        dist.all_gather_object(alike, hash(tuple(chosen.tolist())))
        assert len(set(alike)) == 1
        assert len(chosen) == n // 10
    sampler = sampler_of(n, Rank(Loss()), strength=LossRank())
    sampler.refresh(evidence(n))
    sampler.set_epoch(0)
    draws = list(sampler)
    for first in range(0, len(draws), BATCH):
        columns = zip(*draws[first : first + BATCH], strict=True)
        index, copy, weight, strength, epoch, _ = map(torch.tensor, columns)
        batch = Sample(None, index * CLASSES // n, index, weight, strength, copy, epoch)
        sampler.report(batch, loss=torch.rand(len(index), generator=generator))
    found["set_epoch"] = read(lambda: sampler.set_epoch(1))
    return found


def child(n: int, folder: str) -> None:
    """Measure on this rank of torchrun or Ray Train, and write what was found."""
    alone = not dist.is_initialized()
    if alone:
        dist.init_process_group("gloo")
    path = Path(folder) / f"{dist.get_rank()}.json"
    path.write_text(json.dumps(readings(n)))
    dist.barrier()
    if alone:
        dist.destroy_process_group()


def under_torchrun(n: int, ranks: int, folder: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={ranks}", __file__, "--child", str(n), folder]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{ranks} ranks ended with status {done.returncode}:\n{done.stderr}")


def under_ray(n: int, ranks: int, folder: str) -> None:
    import ray
    from ray.train import ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    here = str(Path(__file__).parent)
    ray.init(
        num_cpus=ranks,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": here, "OMP_NUM_THREADS": "1"}},
    )

    def loop(config: dict[str, Any]) -> None:
        from ranks import child

        child(config["n"], config["folder"])

    try:
        TorchTrainer(
            loop,
            train_loop_config={"n": n, "folder": folder},
            scaling_config=ScalingConfig(num_workers=ranks),
            torch_config=TorchConfig(backend="gloo"),
        ).fit()
    finally:
        ray.shutdown()


def taken(launch: Callable[[int, int, str], None], n: int, ranks: int) -> dict[str, Any]:
    """Return, for each part, the rank that took most, and the median of the ranks."""
    with tempfile.TemporaryDirectory() as folder:
        launch(n, ranks, folder)
        found = [json.loads(path.read_text()) for path in Path(folder).glob("*.json")]
    if len(found) != ranks:
        raise RuntimeError(f"{ranks} ranks were started, {len(found)} have answered")
    return {
        part: {
            name: {"median": median(values), "max": max(values)}
            for name in found[0][part]
            for values in [[rank[part][name] for rank in found]]
        }
        for part in found[0]
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--ray", action="store_true", help="under Ray Train as well")
    parser.add_argument("--samples", type=int, help="only so many, on 1 and 2 ranks")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--child", nargs=2, metavar=("N", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.child:
        child(int(options.child[0]), options.child[1])
        return
    jobs = [{"n": options.samples, "ranks": r} for r in (1, 2)] if options.samples else JOBS
    wanted = [("torchrun", under_torchrun, job) for job in jobs]
    if options.ray:
        wanted.append(("ray", under_ray, {"n": jobs[0]["n"], "ranks": 4}))
    rows = []
    for name, launch, job in progress(wanted):
        rows.append({"under": name, **job, "parts": taken(launch, **job)})
        for part, values in rows[-1]["parts"].items():
            line = "  ".join(f"{key} {value['max']:,.6g}" for key, value in values.items())
            print(f"{name} {job} {part}: {line}")
    record = {"environment": environment(1, PACKAGES), "rows": rows}
    save(options.output, "ranks", "cpu", record)
    print(json.dumps({"benchmark": "ranks", "machine": machine()}))


if __name__ == "__main__":
    main()
