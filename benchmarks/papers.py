"""Train the papers' tables: what accuracy and time the four methods give, on real images.

    python benchmarks/papers.py table4 --data DIR                     the reduced schedule, on a CPU
    python benchmarks/papers.py table4 table5 --data DIR --device cuda    the papers' own
    python benchmarks/papers.py table4 --dataset svhn --data DIR --schedule paper --network resnet32

DIR holds train/ and test/ with one folder a class, or what --dataset names: see
benchmarks/sources.py. Each run, a problem, a method and a seed, is trained once, whichever tables
it belongs to; what is on disk is not run again, and another data set, size, network or augmentation
has files of its own. On a CPU two runs go side by side with a thread each; seconds are then of the
processor's work, without the wait for busy cores; with --compile a step takes two thirds of the
time there. benchmarks/report.py makes the tables.

Schedules: "paper", all images, ResNet-20 or -32, 200 epochs, a rate divided by 10 twice, R = 20,
taken on a GPU; "he-preact", "he-wrn", "he-wrn-cosine", He et al.'s 400 epochs and 50 more where
refined; "he-preact-1000", their 1,000 and 200; "reduced", 100 images a class (and the whole test
set), ResNet-8, 100 epochs of a one-cycle rate, R = 10, taken on a CPU; "short", 500 images a class,
30 epochs, R = 5; "frontier", the reduced one in 1,000 epochs, of which the frontier's tables take a
share.
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
import sources
import torch
from cifar import Images
from common import device_name, environment
from method import Method
from recipe import Outcome, Trainer, halved
from records import SEEDS, Run, commit, path_of, read
from schedules import REDUCED, SCHEDULES, Problem, Schedule
from setting import Setting, add_options, at_least, device_of, planned, source_of
from sources import Source
from tables import TABLES, Row
from tqdm import tqdm

from augloader import FacilityLocation

PACKAGES = ("augloader", "numpy", "torch", "torchvision", "kornia", "numba", "triton")
FAISS = ("faiss-gpu", "faiss-cpu", "faiss-gpu-cuvs")  # one of them

_decoded = lru_cache(maxsize=3)(sources.images)


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
    row: Row,
    schedule: Schedule,
    seed: int,
    source: Source,
    device: torch.device,
    threads: int,
    watch: bool,
    compiled: bool,
) -> Outcome:
    """Train one run; in a process of the pool."""
    torch.set_num_threads(threads)
    # The last run's code and CUDA graphs, which hold its memory: Dynamo compiles a function for
    # eight networks, and runs it as it is from then on.
    torch.compiler.reset()
    warm_up(device)
    given = _decoded(source, row.problem, schedule.per_class)
    trainer = Trainer(row.problem, schedule, row.method, seed, given, device, watch, compiled)
    return trainer.run()


def missing(
    setting: Setting,
    names: Sequence[str],
    seeds: Sequence[int],
    only: Sequence[str] = (),
    watch: bool = False,
) -> list[tuple[int, Row]]:
    """Return the seeds and rows that are still to be run, each once: table by table, by seed.

    Rows are taken whose file's name begins with one of ``only``; all where it is empty. With
    ``watch`` runs are missing that were not watched.
    """
    wanted: dict[tuple[int, Path], Row] = {}
    for name in names:
        rows = rows_of(setting, name, only)
        for seed in seeds:
            for place, row in rows:
                record = read(setting.folder, row.problem, setting.schedule, row.method)
                runs = [r for r in record.runs if r.outcome.watched or not watch]
                if seed not in {run.seed for run in runs}:
                    wanted.setdefault((seed, place), row)
    return [(seed, row) for (seed, _), row in wanted.items()]


def rows_of(setting: Setting, name: str, only: Sequence[str] = ()) -> list[tuple[Path, Row]]:
    """Return a table's rows and their files: those whose names begin with one of ``only``."""
    rows = setting.table(name).rows
    places = (path_of(setting.folder, row.problem, setting.schedule, row.method) for row in rows)
    return [
        (place, row)
        for place, row in zip(places, rows, strict=True)
        if place.name.startswith(tuple(only) or "")
    ]


def require_same_data(setting: Setting, source: Source, rows: Sequence[Row]) -> None:
    """Raise unless the images are those that these problems' results in this folder are of.

    Raises:
        ValueError: they are of others; nothing is trained then.
    """
    for problem in {row.problem: None for row in rows}:
        found = map(sources.checksum, _decoded(source, problem, setting.schedule.per_class))
        records.require_data(setting.folder, problem, setting.schedule, *found)


def of_all(data: str) -> list[str]:
    """Return the tables that "all" are of a data set: without a schedule, and not of others."""
    usual = {name: table for name, table in TABLES.items() if not table.schedule}
    return [name for name, table in usual.items() if not table.alone or table.data == data]


def main(argv: Sequence[str] | None = None) -> None:
    lines = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=lines[0], epilog=lines[2], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("tables", nargs="+", choices=[*TABLES, "all"], metavar="TABLE", help=", ".join(TABLES))
    add("--data", type=Path, required=True, help="folder of the images")
    add("--download", action="store_true", help="let torchvision fetch what is missing")
    add("--watch", action="store_true", help="accuracy and clean loss after every epoch")
    add("--compile", action="store_true", help="compile the step on a CPU too: C++ compiler")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--seeds", type=at_least(0), nargs="+", default=[*range(SEEDS)])
    add("--only", nargs="+", default=[], metavar="NAME", help="rows whose files so begin")
    add("--jobs", type=at_least(1), help="runs side by side (one a core; 1 on a GPU)")
    add("--threads", type=at_least(1), help="of each run (what the jobs leave)")
    add_options(parser)
    options = parser.parse_args(argv)
    device = device_of(parser, options.device)
    cuda = device.type == "cuda"
    source = source_of(options, options.data)
    names = options.tables if "all" not in options.tables else of_all(source.name)
    own = {TABLES[name].schedule for name in names}
    if len(own) > 1:
        parser.error("tables of different schedules are trained one after the other")
    usual = SCHEDULES[options.schedule or own.pop() or ("paper" if cuda else "reduced")]
    schedule = planned(usual, options)
    setting = Setting(source.name, schedule, options.policy, options.output)
    compiled = cuda or options.compile
    cores = os.cpu_count() or 1
    jobs = options.jobs or (1 if cuda else cores)
    threads = options.threads or max(1, cores // jobs)
    os.environ["OMP_WAIT_POLICY"] = "passive"  # in the processes of the pool
    version = commit()
    asked = [row for name in names for _, row in rows_of(setting, name, options.only)]
    if not asked:
        files = [place.name for name in names for place, _ in rows_of(setting, name)]
        parser.error(f"argument --only: must begin a row's file, got none of {', '.join(files)}")
    require_same_data(setting, source, asked)
    wanted = missing(setting, names, options.seeds, options.only, options.watch)
    if not wanted:
        print(f"All of these runs are in {setting.folder / schedule.name}.")
        return
    spawn, failed = multiprocessing.get_context("spawn"), 0
    with ProcessPoolExecutor(jobs, spawn) as pool, tqdm(total=len(wanted), disable=None) as bar:
        running = {
            pool.submit(
                train, row, schedule, seed, source, device, threads, options.watch, compiled
            ): at
            for at in wanted
            for seed, row in [at]
        }
        try:
            for done in as_completed(running):
                seed, row = running[done]
                name = f"{row.problem.name}, {row.method.name}, seed {seed}"
                try:
                    about = environment(threads, PACKAGES + FAISS) | {"device": device_name(device)}
                    about |= {"clock": "wall" if cuda else "cpu", "commit": version}
                    dtype = "bfloat16" if halved(device) else "float32"
                    about |= {"compiled": compiled, "precision": dtype}
                    run = Run(seed, done.result(), about)
                    records.add(run, setting.folder, row.problem, schedule, row.method)
                    bar.write(f"{name}: {100 * run.outcome.accuracy:.1f} %")
                except Exception as error:  # the others go on
                    failed += 1
                    bar.write(f"{name} failed: {error!r}")
                bar.update()
        except BaseException:  # Ctrl-C
            pool.shutdown(cancel_futures=True)
            raise
    if failed:
        raise SystemExit(f"{failed} of {len(wanted)} runs failed. Call it again for these.")


if __name__ == "__main__":
    main()
