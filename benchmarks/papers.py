"""Train the papers' tables: what accuracy and time the four methods give, on real images.

    python benchmarks/papers.py table4 --data DIR                     the reduced schedule, on a CPU
    python benchmarks/papers.py table4 table5 --data DIR --device cuda    the papers' own

DIR holds train/ and test/ with one folder a class, as CIFAR-10. Each run, a problem, a method and a
seed, is trained once, whichever tables it belongs to; what is on disk is not run again. On a CPU
two runs go side by side with a thread each; seconds are then of the processor's work, without the
wait for busy cores. benchmarks/report.py makes the tables.

Schedules: "paper", all images, ResNet-20 or -32, 200 epochs, a rate divided by 10 twice, R = 20,
taken on a GPU; "reduced", 100 images a class (and the whole test set), ResNet-8, 100 epochs of a
one-cycle rate, R = 10, taken on a CPU; "short", 500 images a class, 30 epochs, R = 5; "frontier",
the reduced one in 1,000 epochs, of which the frontier's tables take a share.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import records
import torch
from cifar import Images
from common import device_name, environment
from recipe import REDUCED, SCHEDULES, Method, Outcome, Problem, Schedule, Trainer, images
from records import RESULTS, SEEDS, Run, commit, path_of, read
from tables import TABLES, Row
from tqdm import tqdm

from augloader import FacilityLocation

PACKAGES = ("augloader", "numpy", "torch", "torchvision", "kornia", "numba", "triton")
FAISS = ("faiss-gpu", "faiss-cpu", "faiss-gpu-cuvs")  # one of them

_decoded = lru_cache(maxsize=3)(images)


@lru_cache
def warm_up(device: torch.device) -> None:
    """Do everything once in this process, so that no run's time has compilers in it."""
    schedule = replace(REDUCED, epochs=1)
    labels = torch.arange(4 * schedule.batch) % 10
    generator = torch.Generator().manual_seed(0)
    shape = (len(labels), 3, 32, 32)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    given = Images(pixels, labels, [str(c) for c in range(10)])
    method = Method("warm-up", FacilityLocation(), 0.5)
    Trainer(Problem("warm-up"), schedule, method, 0, (given, given), device).run()


def train(
    row: Row, schedule: Schedule, seed: int, data: Path, device: torch.device, threads: int
) -> Outcome:
    """Train one run; in a process of the pool."""
    torch.set_num_threads(threads)
    # The last run's code and CUDA graphs, which hold its memory: Dynamo compiles a function for
    # eight networks, and runs it as it is from then on.
    torch.compiler.reset()
    warm_up(device)
    given = _decoded(data, row.problem, schedule)
    return Trainer(row.problem, schedule, row.method, seed, given, device).run()


def missing(
    names: Sequence[str],
    schedule: Schedule,
    seeds: Sequence[int],
    folder: Path,
    only: Sequence[str] = (),
) -> list[tuple[int, Row]]:
    """Return the seeds and rows that are still to be run, each once: table by table, by seed.

    Rows are taken whose file's name begins with one of ``only``; all where it is empty.
    """
    wanted: dict[tuple[int, Path], Row] = {}
    for name in names:
        for seed in seeds:
            for row in TABLES[name].rows:
                record = read(folder, row.problem, schedule, row.method)
                if seed not in {run.seed for run in record.runs}:
                    place = path_of(folder, row.problem, schedule, row.method)
                    if place.name.startswith(tuple(only) or ""):
                        wanted.setdefault((seed, place), row)
    return [(seed, row) for (seed, _), row in wanted.items()]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add = parser.add_argument
    add("tables", nargs="+", choices=[*TABLES, "all"], metavar="TABLE", help=", ".join(TABLES))
    add("--data", type=Path, required=True, help="folder with train/ and test/")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--schedule", choices=SCHEDULES, help="(reduced; paper on a GPU)")
    add("--rate", type=float, help="other than the schedule's; the results go to another folder")
    add("--epochs", type=int, help="other than the schedule's; the results go to another folder")
    add("--per-class", type=int, help="training images a class; the same")
    add("--seeds", type=int, nargs="+", default=[*range(SEEDS)])
    add("--only", nargs="+", default=[], metavar="NAME", help="rows whose files so begin")
    add("--jobs", type=int, help="runs side by side (one a core; 1 on a GPU)")
    add("--threads", type=int, help="of each run (what the jobs leave)")
    add("--output", type=Path, default=RESULTS)
    options = parser.parse_args(argv)
    device = torch.device(options.device)
    cuda = device.type == "cuda"
    names = [name for name in TABLES if not TABLES[name].schedule]
    names = names if "all" in options.tables else options.tables
    own = {TABLES[name].schedule for name in names}
    if len(own) > 1:
        parser.error("tables of different schedules are trained one after the other")
    usual = SCHEDULES[options.schedule or own.pop() or ("paper" if cuda else "reduced")]
    schedule = planned(usual, options.epochs, options.per_class, options.rate)
    cores = os.cpu_count() or 1
    jobs = options.jobs or (1 if cuda else cores)
    threads = options.threads or max(1, cores // jobs)
    os.environ["OMP_WAIT_POLICY"] = "passive"  # in the processes of the pool
    version = commit()
    wanted = missing(names, schedule, options.seeds, options.output, options.only)
    spawn, failed = multiprocessing.get_context("spawn"), 0
    with ProcessPoolExecutor(jobs, spawn) as pool, tqdm(total=len(wanted), disable=None) as bar:
        running = {
            pool.submit(train, row, schedule, seed, options.data, device, threads): (seed, row)
            for seed, row in wanted
        }
        try:
            for done in as_completed(running):
                seed, row = running[done]
                name = f"{row.problem.name}, {row.method.name}, seed {seed}"
                try:
                    about = environment(threads, PACKAGES + FAISS) | {"device": device_name(device)}
                    about |= {"clock": "wall" if cuda else "cpu", "commit": version}
                    run = Run(seed, done.result(), about)
                    records.add(run, options.output, row.problem, schedule, row.method)
                    bar.write(f"{name}: {run.outcome}")
                except Exception as error:  # the others go on
                    failed += 1
                    bar.write(f"{name} failed: {error!r}")
                bar.update()
        except BaseException:  # Ctrl-C
            pool.shutdown(cancel_futures=True)
            raise
    if failed:
        raise SystemExit(f"{failed} of {len(wanted)} runs failed. Call it again for these.")


def planned(
    schedule: Schedule, epochs: int | None, per_class: int | None, rate: float | None = None
) -> Schedule:
    """Return the schedule, or another one under another name."""
    if epochs is not None:
        schedule = replace(schedule, name=f"{schedule.name}-{epochs}-epochs", epochs=epochs)
    if per_class is not None:
        name = f"{schedule.name}-{per_class}-a-class"
        schedule = replace(schedule, name=name, per_class=per_class)
    if rate is not None:
        schedule = replace(schedule, name=f"{schedule.name}-rate-{rate:g}", rate=rate)
    return schedule


if __name__ == "__main__":
    main()
