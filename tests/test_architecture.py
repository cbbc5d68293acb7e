"""Imports point one way, optional packages stay optional, the public names are complete."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import augloader

PACKAGE = Path(augloader.__file__).parent
# Every module may import those before it.
ORDER = [
    "checks",
    "progress",
    "summary",
    "kernels",
    "proxies",
    "types",
    "neighbors",
    "batched",
    "medoids",
    "engines",
    "coreset",
    "strategies",
    "influence",
    "svm",
    "scores",
    "kdpp",
    "subsampling",
    "schedule",
    "strength",
    "forgetting",
    "table",
    "ranks",
    "grids",
    "dataset",
    "sampler",
    "wrapping",
    "sweeping",
    "ops",
    "keyed",
    "colour",
    "geometry",
    "policies",
    "targets",
    "kornia_ops",
    "dense",
    "fused",
    "applying",
    "transform",
    "mixing",
    "hardest",
    "lightning",
    "plot",
]
# Of packages that the core does without, what may be imported where.
EXTRAS = {"lightning": {"lightning"}, "plot": {"matplotlib"}}


def imported(path: Path) -> list[str]:
    tree = ast.parse(path.read_text())
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "augloader":
            found += [f"augloader.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return found


def test_every_module_has_its_place() -> None:
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert modules == set(ORDER)
    tests = {path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")}
    assert modules <= tests


@pytest.mark.parametrize("module", ORDER)
def test_imports_point_one_way(module: str) -> None:
    own = [name for name in imported(PACKAGE / f"{module}.py") if name.startswith("augloader")]
    before = {f"augloader.{name}" for name in ORDER[: ORDER.index(module)]}
    assert set(own) <= before


@pytest.mark.parametrize("module", ORDER)
def test_only_the_declared_packages_are_imported(module: str) -> None:
    allowed = {
        "augloader",
        "faiss",
        "kornia",
        "numba",
        "numpy",
        "sklearn",
        "torch",
        "torchvision",
        "tqdm",
        "triton",
    }
    tops = {name.split(".")[0] for name in imported(PACKAGE / f"{module}.py")}
    assert tops - set(sys.stdlib_module_names) <= allowed | EXTRAS.get(module, set())


def test_optional_packages_stay_optional() -> None:
    program = (
        "import sys\n"
        "optional = 'matplotlib pytest sklearn tqdm accelerate lightning ray ignite torchdata '\n"
        "optional += 'tensorboard torch.utils.tensorboard'\n"
        "for name in optional.split(): sys.modules[name] = None\n"
        "import augloader\n"
        "assert all(hasattr(augloader, name) for name in augloader.__all__)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_public_names_are_sorted_documented_and_typed() -> None:
    names = augloader.__all__
    assert names == sorted(names, key=lambda name: (not name.isupper(), name))
    assert (PACKAGE / "py.typed").exists()
    for name in augloader.__all__:
        public = getattr(augloader, name)
        doc = inspect.getdoc(public)
        assert doc, name
        if name not in (
            "Strategy",
            "Score",
            "StrengthRule",
            "Medoids",
            "Certificate",
        ):  # protocols, and what a function returns
            assert ">>>" in doc, name
