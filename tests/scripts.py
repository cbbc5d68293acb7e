"""Importing the example scripts by path and running them as from the command line."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name: str) -> ModuleType:
    """Import an example by its path; dataclasses in it look their module up by this name."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def run(module: ModuleType, monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    """Call ``main`` with these options; it may set the number of threads, which is given back."""
    monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", *options])
    threads = torch.get_num_threads()
    try:
        module.main()
    finally:
        torch.set_num_threads(threads)


def image_folder(root: Path, train: int, test: int) -> None:
    """Write random images of two classes: ``train`` and ``test`` of each."""
    generator = torch.Generator().manual_seed(0)
    for part, count in (("train", train), ("test", test)):
        for label in ("cat", "dog"):
            (root / part / label).mkdir(parents=True)
            for i in range(count):
                pixels = torch.randint(256, (32, 32, 3), generator=generator, dtype=torch.uint8)
                Image.fromarray(pixels.numpy()).save(root / part / label / f"{i}.png")


def write_norb(root: Path, count: int) -> dict[str, np.ndarray]:
    """Write files of NORB, ``count`` pairs of random images each; return the pixels by part."""
    rng, pixels = np.random.default_rng(0), {}
    for kind in ("training", "testing"):
        pixels[kind] = rng.integers(0, 256, (count, 2, 96, 96), dtype=np.uint8)
        labels = np.arange(count, dtype="<i4") % 5
        data = np.array([0x1E3D4C55, 4, count, 2, 96, 96], dtype="<i4").tobytes()
        (root / f"smallnorb-{kind}-dat.mat").write_bytes(data + pixels[kind].tobytes())
        data = np.array([0x1E3D4C54, 1, count, 1, 1], dtype="<i4").tobytes()
        (root / f"smallnorb-{kind}-cat.mat").write_bytes(data + labels.tobytes())
    return pixels
