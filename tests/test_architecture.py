"""Imports point one way, heavy and optional packages wait for their use, public names are whole."""

import ast
import inspect
import pickle
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import augloader

PACKAGE = Path(augloader.__file__).parent
TESTS = Path(__file__).parent
ROOT = TESTS.parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
SCRIPTS = sorted([*ROOT.glob("benchmarks/**/*.py"), *ROOT.glob("examples/**/*.py")])
# What a folder may import beside itself. What is not named here, the views and integrations, may
# import all of these, and none of these may import it.
BELOW = {
    "core": set[str](),
    "selection": {"core"},
    "feedback": {"core"},
    "augment": {"core"},
    "distributed": {"core", "selection", "feedback"},
    "loading": {"core", "selection", "feedback", "distributed"},
}
VIEWS = {"costs", "summary"}  # which a value's own summary() imports where it is called
EXTRAS = {"integrations": {"lightning", "transformers"}, "plot": {"matplotlib"}}
HEAVY = ("faiss", "kornia", "triton", "numba", "matplotlib", "scipy", "sklearn")


def name_of(path: Path) -> str:
    """Return a module's dotted name."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def homes(package: str) -> dict[str, str]:
    """Return the modules that the names a folder exports live in."""
    stub = PACKAGE.parent.joinpath(*package.split("."), "__init__.pyi")
    if package == "augloader" or not stub.exists():
        return {}
    nodes = [node for node in ast.parse(stub.read_text()).body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in nodes for alias in node.names}


def imported(tree: ast.AST) -> set[str]:
    """Return the dotted names that a piece of code imports; of a package also what is in it."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            known = homes(node.module)
            found |= {known[alias.name] for alias in node.names if alias.name in known}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def at_import(tree: ast.Module) -> set[str]:
    """Return what is imported when the module is, not where a function is called."""
    inner = {
        statement
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for statement in ast.walk(node)
    }
    imports = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    return set().union(*(imported(node) for node in imports if node not in inner))


def wrong(folder: str, names: set[str]) -> set[str]:
    """Return the imports that a folder may not have; "" is the top of the package."""
    rooms = {name.split(".")[1] for name in names if name.startswith("augloader.")}
    known = {room for room in rooms if (PACKAGE / room).is_dir() or room in VIEWS}
    if folder not in BELOW:
        return set()
    return known - BELOW[folder] - {folder}


def folder_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_one_way(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert not wrong(folder_of(path), at_import(tree))
    assert wrong(folder_of(path), imported(tree)) <= VIEWS


@pytest.mark.parametrize(
    ("folder", "line"),
    [
        ("core", "from augloader.selection.strategy import Strategy"),
        ("core", "from augloader import summary"),
        ("selection", "from augloader.feedback import SampleTable"),
        ("feedback", "import augloader.augment.transform"),
        ("loading", "from augloader.augment.pixels import rows"),
        ("distributed", "from augloader.loading.sampler import CoresetSampler"),
        ("loading", "from augloader.plot import medoids"),
        ("augment", "from augloader.diagnostics import risk_gap"),
        ("loading", "from augloader.diagnostics.risks import risk_gap"),
    ],
)
def test_a_planted_import_is_found(folder: str, line: str) -> None:
    assert wrong(folder, at_import(ast.parse(line)))
    assert not wrong("plot", at_import(ast.parse(line)))


def test_modules_form_no_circle() -> None:
    names = {name_of(path) for path in MODULES}
    arrows = {
        name_of(path): {name for name in at_import(ast.parse(path.read_text())) if name in names}
        - {name_of(path)}
        for path in MODULES
    }
    while free := {name for name, below in arrows.items() if not below & arrows.keys()}:
        arrows = {name: below for name, below in arrows.items() if name not in free}
    assert not arrows


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_is_tested_from_its_own_folder(path: Path) -> None:
    folder = TESTS / path.parent.relative_to(PACKAGE)
    tests = [ast.parse(test.read_text()) for test in folder.glob("test_*.py")]
    named = (folder / f"test_{path.stem}.py").exists()
    assert named or name_of(path) in set().union(*map(imported, tests), set())


@pytest.mark.parametrize("path", MODULES + SCRIPTS, ids=lambda path: "/".join(path.parts[-2:]))
def test_no_file_is_long(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 500


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_the_declared_packages_are_imported(path: Path) -> None:
    allowed = {"augloader", "faiss", "kornia", "numba", "numpy", "torch", "torchvision", "triton"}
    extras = {"scipy", "sklearn", "tqdm"}  # imported where they are used
    extras |= EXTRAS.get(folder_of(path), set())
    tree = ast.parse(path.read_text())
    tops = {name.split(".")[0] for name in imported(tree)} - set(sys.stdlib_module_names)
    assert tops <= allowed | extras
    if folder_of(path) not in ("integrations", "plot"):
        assert not {name.split(".")[0] for name in at_import(tree)} & extras


def run(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_folders_are_there_without_importing_them() -> None:
    run(
        "import augloader\n"
        "assert augloader.selection.Uniform is augloader.Uniform\n"
        "assert {'augment', 'diagnostics', 'loading', 'plot', 'summary'} <= set(dir(augloader))\n"
        "augloader.summary.of_selection, augloader.integrations\n"
    )


@pytest.mark.slow
def test_heavy_packages_wait_until_a_name_is_used() -> None:
    run(
        "import sys\n"
        "import augloader\n"
        f"heavy = [name for name in {HEAVY} if name in sys.modules]\n"
        "assert not heavy, heavy\n"
        "assert 'torch' not in sys.modules\n"
        "augloader.CoresetSampler, augloader.WeightedAugmentedDataset, augloader.collate\n"
        f"heavy = [name for name in {HEAVY} if name in sys.modules]\n"
        "assert not heavy, heavy\n"
    )


@pytest.mark.slow
def test_a_worker_that_unpickles_the_dataset_loads_no_heavy_package() -> None:
    program = (
        "import pickle, sys\n"
        "data = pickle.loads(bytes.fromhex(sys.argv[1]))\n"
        "assert data[1].target == 1\n"
        f"heavy = [name for name in {HEAVY} if name in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    data = pickle.dumps(augloader.WeightedAugmentedDataset([(0, 0), (1, 1)])).hex()
    subprocess.run([sys.executable, "-c", program, data], check=True)


@pytest.mark.slow
def test_optional_packages_stay_optional() -> None:
    run(
        "import sys\n"
        "optional = 'matplotlib pytest scipy sklearn tqdm accelerate lightning ray ignite '\n"
        "optional += 'torchdata tensorboard torch.utils.tensorboard transformers'\n"
        "for name in optional.split(): sys.modules[name] = None\n"
        "import augloader\n"
        "assert all(hasattr(augloader, name) for name in augloader.__all__)\n"
    )


PACKAGES = ["augloader", *(name_of(path) for path in sorted(PACKAGE.rglob("__init__.py"))[1:])]


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_are_sorted_documented_and_typed(package: str) -> None:
    if package == "augloader.plot":
        pytest.importorskip("matplotlib")
    module = import_module(package)
    names = getattr(module, "__all__", [])
    assert names == sorted(names, key=lambda name: (not name.isupper(), name))
    inner = {path.stem for path in Path(str(module.__file__)).parent.iterdir()}
    assert not inner & set(names)  # a module never has the name of what its package exports
    assert set(names) <= set(dir(module))
    for name in names:
        public = getattr(module, name)
        if not inspect.isclass(public) and not inspect.isfunction(public):
            continue  # the alias of a type
        doc = inspect.getdoc(public)
        assert doc, name
        protocol = getattr(public, "_is_protocol", False)
        if package == "augloader" and not protocol:
            assert ">>>" in doc, name


def test_the_stub_names_what_is_public() -> None:
    assert (PACKAGE / "py.typed").exists()
    assert 35 <= len(augloader.__all__) <= 57
    with pytest.raises(AttributeError, match="module 'augloader' has no attribute 'Coreset'"):
        augloader.Coreset  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("name", augloader._FORMER)  # type: ignore[attr-defined]
def test_former_names_work_and_say_where_they_are(name: str) -> None:
    home = augloader._FORMER[name]  # type: ignore[attr-defined]
    with pytest.warns(DeprecationWarning, match=f"from {home} import {name}"):
        found = getattr(augloader, name)
    assert found is getattr(import_module(home), name)


def test_the_former_lightning_module_says_where_the_callback_is() -> None:
    pytest.importorskip("lightning")
    from augloader import lightning
    from augloader.integrations.lightning import CoresetCallback

    with pytest.warns(DeprecationWarning, match="is now augloader.integrations.lightning"):
        assert lightning.CoresetCallback is CoresetCallback
    with pytest.raises(AttributeError, match="no attribute 'Callback'"):
        lightning.Callback  # noqa: B018
