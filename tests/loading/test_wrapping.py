"""An existing loader becomes one that augments: what it keeps, what batches look like."""

import copy
import pickle
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)
from torchvision import tv_tensors
from torchvision.transforms import v2

import augloader
from augloader import (
    CoresetSampler,
    DistributedCoresetSampler,
    Every,
    FacilityLocation,
    LastLayerGradient,
    Loss,
    Rank,
    Sample,
    Uniform,
    WeightedAugmentedDataset,
    sweep,
    wrap,
)

pytestmark = pytest.mark.filterwarnings("ignore:All draws of epoch:UserWarning")  # looked at

N = 12


def tensors(n: int = N) -> TensorDataset:
    return TensorDataset(torch.arange(2.0 * n).view(n, 2), torch.arange(n) % 3)


def wrapped(data: Any, options: dict[str, Any] | None = None, **more: Any) -> Any:
    """Return the wrapped loader of a plain one, and its sampler, refreshed."""
    plain: DataLoader[Any] = DataLoader(data, **{"batch_size": 4, **(options or {})})
    loader, sampler = wrap(plain, Uniform(), **{"fraction": 0.5, "seed": 3, **more})
    sampler.refresh()
    return loader, sampler


def same(a: Any, b: Any) -> bool:
    """Whether two batches are equal in values, types, order and keys."""
    if isinstance(a, Tensor):
        return type(a) is type(b) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return type(a) is type(b) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and bool(a == b)


# Items of many shapes -----------------------------------------------------------------------------


class Point(NamedTuple):
    image: Any
    label: Any


@dataclass(frozen=True)
class Record:
    image: Any
    label: Any
    name: str = "none"


@dataclass
class Batch:
    images: Any
    labels: Any


class Slotted:
    __slots__ = ("images",)


def images(n: int = N) -> list[Tensor]:
    return [torch.full((2,), float(i)) for i in range(n)]


def as_tuple(i: int) -> Any:
    return torch.full((2,), float(i)), i % 3, f"n{i}"


def as_list(i: int) -> Any:
    return [torch.full((2,), float(i)), i % 3]


def as_dict(i: int) -> Any:
    return {"name": f"n{i}", "image": np.full(2, i), "deep": {"label": (i % 3, i / 2)}, "label": i}


def as_point(i: int) -> Any:
    return Point(torch.full((2,), float(i)), i % 3)


def as_record(i: int) -> Any:
    return Record(torch.full((2,), float(i)), i % 3)


def as_tensor(i: int) -> Any:
    return torch.full((2,), float(i))


def records(rows: list[Record]) -> Batch:
    assert all(type(row) is Record for row in rows)
    return Batch(torch.stack([row.image for row in rows]), torch.tensor([r.label for r in rows]))


def as_pair(rows: list[Any]) -> tuple[Tensor, Tensor]:
    assert type(rows) is list
    return torch.stack([row[0] for row in rows]), torch.tensor([row[1] for row in rows])


def as_named(rows: list[Any]) -> Point:
    return Point(*as_pair(rows))


def untouched(rows: Any) -> Any:
    return rows


SHAPES = {
    "tuple": (as_tuple, default_collate),
    "list": (as_list, default_collate),
    "dict": (as_dict, default_collate),
    "namedtuple": (as_point, default_collate),
    "dataclass": (as_record, records),
    "tensor": (as_tensor, default_collate),
    "tuple batch": (as_tuple, as_pair),
    "named batch": (as_tuple, as_named),
    "a list of items": (as_tuple, untouched),
}


def parts(batch: Any, name: str, kind: str) -> tuple[Any, Any]:
    """Return a batch as it was, and what was added."""
    if isinstance(batch, dict):
        return {key: part for key, part in batch.items() if key != name}, batch[name]
    if hasattr(batch, "_fields"):
        assert batch._fields == ("image", "label", name)
        return Point(*batch[:-1]), getattr(batch, name)
    if isinstance(batch, Batch):
        return Batch(batch.images, batch.labels), getattr(batch, name)
    assert isinstance(batch, list | tuple)
    return batch[0] if kind == "tensor" else batch[:-1], batch[-1]


def alike(a: Any, b: Any) -> bool:
    if isinstance(a, Batch):
        return type(b) is Batch and same(a.images, b.images) and same(a.labels, b.labels)
    return same(a, b)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", SHAPES)
def test_batches_keep_the_shape_that_the_collate_function_gives(kind: str, workers: int) -> None:
    make, own = SHAPES[kind]
    data = [make(i) for i in range(N)]
    options = {"collate_fn": own, "num_workers": workers}
    loader, sampler = wrapped(data, options)
    draws = list(sampler)
    found = list(loader)
    assert len(found) == len(loader) == 5
    for i, batch in enumerate(found):
        drawn = draws[4 * i : 4 * i + 4]
        expected = own([data[draw.index] for draw in drawn])
        before, added = parts(batch, "draw", kind)
        assert alike(before, expected)
        assert type(added) is Sample
        assert added.input is added.target is None
        assert added.index.tolist() == [draw.index for draw in drawn]
        assert added.copy.tolist() == [draw.copy for draw in drawn]
        assert added.weight.tolist() == [draw.weight for draw in drawn]
        assert added.strength.tolist() == [draw.strength for draw in drawn]
        assert added.epoch.tolist() == [0] * len(drawn)
        assert added.mixed.tolist() == [False] * len(drawn)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", SHAPES)
def test_the_index_alone_or_nothing_is_added(kind: str, workers: int) -> None:
    make, own = SHAPES[kind]
    data = [make(i) for i in range(N)]
    options = {"collate_fn": own, "num_workers": workers}
    loader, sampler = wrapped(data, options, extras="index")
    indices = [draw.index for draw in sampler]
    for i, batch in enumerate(loader):
        before, added = parts(batch, "index", kind)
        assert added.dtype == torch.int64
        assert added.tolist() == indices[4 * i : 4 * i + 4]
        assert alike(before, own([data[j] for j in added.tolist()]))
    loader, sampler = wrapped(data, options, extras="none")
    for i, batch in enumerate(loader):
        assert alike(batch, own([data[j] for j in indices[4 * i : 4 * i + 4]]))


def test_tensors_in_memory_keep_the_shape_too() -> None:
    for data in (tensors(), Subset(tensors(20), list(range(19, 19 - N, -1)))):
        for own in (default_collate, as_pair):
            loader, sampler = wrapped(data, {"collate_fn": own})
            draws = list(sampler)
            for i, batch in enumerate(loader):
                rows = [data[draw.index] for draw in draws[4 * i : 4 * i + 4]]
                assert same(batch[:-1], own(rows))


def test_a_batch_that_is_a_class_of_its_own_and_goes_through_a_worker() -> None:
    loader, _ = wrapped([as_point(i) for i in range(N)], {"num_workers": 1})
    batch = next(iter(loader))
    assert type(batch).__name__ == "Point"
    x, y, draw = batch
    assert batch.image is x
    assert batch.label is y
    assert batch.draw is draw
    again = pickle.loads(pickle.dumps(batch))
    assert type(again) is type(batch)
    assert same(list(again), list(batch))


class Columns(Dataset[Any]):
    """Returns batches as a tuple, a dict or a list, and may lose some rows."""

    def __init__(self, kind: str, lost: int = 0) -> None:
        self.kind, self.lost = kind, lost
        self.asked: list[list[int]] = []

    def __len__(self) -> int:
        return N

    def __getitem__(self, i: int) -> Any:
        pair = torch.full((2,), float(i)), i % 3
        return dict(zip(("image", "label"), pair, strict=True)) if self.kind == "dict" else pair

    def __getitems__(self, indices: list[int]) -> Any:
        self.asked.append(indices)
        rows = [self[i] for i in indices[self.lost :]]
        if self.kind == "list":
            return rows
        batch = default_collate(rows)
        return (
            batch if self.kind == "dict" else Point(*batch) if self.kind == "point" else (*batch,)
        )


@pytest.mark.parametrize("own", [default_collate, untouched])
@pytest.mark.parametrize("kind", ["tuple", "dict", "list"])
def test_a_dataset_that_fetches_batches_at_once(kind: str, own: Any) -> None:
    data = Columns(kind)
    loader, sampler = wrapped(data, {"collate_fn": own})
    draws = [draw.index for draw in sampler]
    for i, batch in enumerate(loader):
        before, added = parts(batch, "draw", kind)
        indices = draws[4 * i : 4 * i + 4]
        assert added.index.tolist() == indices
        assert data.asked[-1] == indices
        if own is default_collate:
            assert same(before, default_collate([data[j] for j in indices]))
        else:
            assert same(before, Columns(kind).__getitems__(indices))


def test_what_the_loader_returned_whole_it_still_returns() -> None:
    data = Columns("point")
    loader, _ = wrapped(data, {"collate_fn": untouched})
    batch = next(iter(loader))
    assert batch._fields == ("image", "label", "draw")


def test_a_dataset_that_loses_items() -> None:
    for own in (default_collate, untouched):
        loader, _ = wrapped(Columns("list", lost=1), {"collate_fn": own})
        with pytest.raises(ValueError, match="one item an index, got 3 items for 4 indices"):
            next(iter(loader))
    loader, _ = wrapped(Columns("tuple", lost=1))
    with pytest.raises(ValueError, match=r"got columns of \[3, 3\] items for 4"):
        next(iter(loader))


# Transforms ---------------------------------------------------------------------------------------


def plus(x: Any) -> Any:
    return x + 100


def negative(x: Any) -> Any:
    return -x


def double(x: Any) -> Any:
    return x * 2


@pytest.mark.parametrize("kind", ["tuple", "list", "dict", "namedtuple", "dataclass"])
def test_transforms_apply_to_the_rows_that_the_sampler_asks_for(kind: str) -> None:
    make, own = SHAPES[kind]
    data = [make(i) for i in range(N)]
    before = copy.deepcopy(data)
    fields = (0, 1) if kind in ("tuple", "list", "namedtuple") else ("image", "label")
    given: dict[str, Any] = {"weak": plus, "strong": negative, "final": double, "fields": fields}
    loader, sampler = wrapped(data, {"collate_fn": own}, weak_probability=0.5, **given)
    strong = [(draw.index, draw.copy) for draw in sampler if draw.strength > 0]
    assert len(strong) == N // 2
    draws = list(sampler)
    assert {draw.weak for draw in draws} == {False, True}
    for i, batch in enumerate(loader):
        got, _ = parts(batch, "draw", kind)
        rows = []
        for draw in draws[4 * i : 4 * i + 4]:
            item = data[draw.index]
            x = item[fields[0]] if kind != "dataclass" else item.image
            x = (x + 100 if draw.weak else x) * (-1 if draw.strength else 1) * 2
            rows.append(_with_image(item, x, fields[0]))
        assert alike(got, own(rows))
    assert repr(data) == repr(before)


def _with_image(item: Any, image: Any, key: Any) -> Any:
    if isinstance(item, dict):
        return {**item, key: image}
    if isinstance(item, Record):
        return Record(image, item.label, item.name)
    return Point(image, item.label) if isinstance(item, Point) else type(item)([image, *item[1:]])


def test_a_transform_makes_a_column_dataset_rows_again() -> None:
    for kind in ("tuple", "dict"):
        fields = (0, 1) if kind == "tuple" else ("image", "label")
        loader, sampler = wrapped(Columns(kind), strong=negative, fields=fields)
        draws = list(sampler)
        for i, batch in enumerate(loader):
            shown = batch[fields[0]]
            drawn = draws[4 * i : 4 * i + 4]
            assert shown[:, 0].tolist() == [d.index * (-1) ** (d.strength > 0) for d in drawn]
        loader, _ = wrapped(Columns(kind), {"collate_fn": untouched}, strong=negative)
        with pytest.raises(TypeError, match="must return a list of items where single images"):
            next(iter(loader))


@pytest.mark.parametrize(
    ("make", "fields", "words"),
    [
        (as_tuple, ("image", "label"), r"two of the item's \[0, 1, 2\], got 'image'"),
        (as_dict, (0, 1), r"two of the item's \['name', 'image', 'deep', 'label'\], got 0"),
        (as_record, (0, 1), r"two of the item's \['image', 'label', 'name'\], got 0"),
        (as_tensor, (0, 1), "must return tuples, lists, mappings or dataclasses, got Tensor"),
    ],
)
def test_fields_that_an_item_has_not(make: Any, fields: Any, words: str) -> None:
    loader, _ = wrapped([make(i) for i in range(N)], final=double, fields=fields)
    with pytest.raises(TypeError, match=words):
        next(iter(loader))


def test_one_transform_a_copy() -> None:
    loader, _ = wrapped(tensors(), strong=[plus, negative], copies=2)
    for x, _, draw in loader:
        first = torch.arange(2.0 * N).view(N, 2)[draw.index]
        kinds = torch.where(draw.copy == 1, 1, torch.where(draw.copy == 2, 2, 0))
        expected = torch.stack([first, first + 100, -first])[kinds, torch.arange(len(x))]
        assert torch.equal(x, expected)
    with pytest.raises(ValueError, match="copies must be 2"):
        wrap(DataLoader(tensors()), Uniform(), fraction=0.5, strong=[plus, negative])


# What a loader keeps ------------------------------------------------------------------------------


def nothing(worker: int) -> None:
    pass


@pytest.mark.slow
@pytest.mark.parametrize(
    "given",
    [
        {"batch_size": 5},
        {"batch_size": 5, "drop_last": True},
        {"shuffle": True},
        {"pin_memory": True},
        {"generator": torch.Generator().manual_seed(5)},
        {"num_workers": 1, "worker_init_fn": nothing},
        {"num_workers": 1, "timeout": 60},
        {"num_workers": 2, "prefetch_factor": 3},
        {"num_workers": 2, "persistent_workers": True},
        {"num_workers": 2, "in_order": False},
        {"num_workers": 1, "multiprocessing_context": "fork"},
        {"num_workers": 1, "multiprocessing_context": "spawn", "persistent_workers": True},
        {"num_workers": 1, "multiprocessing_context": torch.multiprocessing.get_context("spawn")},
    ],
)
def test_each_argument_is_kept(given: dict[str, Any]) -> None:
    plain: DataLoader[Any] = DataLoader(tensors(), **given)
    loader, sampler = wrap(plain, Uniform(), fraction=0.5)
    names = [*given, "batch_size", "num_workers", "drop_last", "generator", "pin_memory"]
    for name in {*names} - {"shuffle"}:
        assert getattr(loader, name) == getattr(plain, name), name
    assert type(loader) is DataLoader
    assert loader.sampler is sampler
    sampler.refresh()
    batches = -(-18 // loader.batch_size) if loader.batch_size else 0
    if given.get("drop_last"):
        batches = 18 // 5
    if not given.get("pin_memory"):  # which warns where there is nothing to pin for
        for _ in range(2):
            found = list(loader)
            assert len(found) == batches == len(loader)
            assert {len(x) for x, _, _ in found[:-1]} == {loader.batch_size}


@pytest.mark.slow
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_persistent_workers_see_each_epoch(start: str) -> None:
    options = {"num_workers": 1, "multiprocessing_context": start, "persistent_workers": True}
    loader, sampler = wrapped(tensors(), options, strong=negative)
    for epoch in range(2):
        sampler.set_epoch(epoch)
        sampler.refresh()
        draws = list(sampler)
        found = list(loader)
        assert [i for _, _, draw in found for i in draw.index.tolist()] == [d.index for d in draws]
        for x, y, draw in found:
            assert draw.epoch.tolist() == [epoch] * len(x)
            assert torch.equal(y, draw.index % 3)
            signs = 1 - 2 * draw.strength
            assert torch.equal(x[:, 1], signs * (2 * draw.index + 1))


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # which torchdata calls
def test_torchdata_loaders_stay_what_they_are() -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
    for shuffle in (False, True):
        for workers in (0, 1):
            plain = stateful(
                tensors(), 4, shuffle=shuffle, num_workers=workers, snapshot_every_n_steps=2
            )
            made = wrap(plain, Uniform(), fraction=0.5)
            loader: Any = made[0]
            sampler = made[1]
            assert type(loader) is stateful
            assert loader.snapshot_every_n_steps == 2
            sampler.refresh()
            draws = [draw.index for draw in sampler]
            batches = iter(loader)
            seen = [next(batches)[2].index.tolist() for _ in range(2)]
            state = loader.state_dict()
            rest = [draw.index.tolist() for _, _, draw in batches]
            assert [i for part in seen + rest for i in part] == draws
            again: Any
            again, other = wrap(plain, Uniform(), fraction=0.5)
            other.load_state_dict(sampler.state_dict())
            again.load_state_dict(state)
            assert [draw.index.tolist() for _, _, draw in again] == rest


def test_the_same_as_one_built_by_hand() -> None:
    given: dict[str, Any] = {"weak": plus, "strong": negative, "final": double}
    options: dict[str, Any] = {"fraction": 0.5, "seed": 7, "copies": 2, "refresh": Every(2)}
    data = WeightedAugmentedDataset(tensors(), **given)
    theirs = CoresetSampler(data, Uniform(), **options)
    by_hand = DataLoader(data, 4, sampler=theirs)
    loader, sampler = wrap(DataLoader(tensors(), 4, shuffle=True), Uniform(), **given, **options)
    for epoch in range(3):
        for each in (sampler, theirs):
            each.set_epoch(epoch)
            if each.refresh_due:
                each.refresh()
        assert list(sampler) == list(theirs)
        for (x, y, draw), sample in zip(loader, by_hand, strict=True):
            assert same(x, sample.input)
            assert same(y, sample.target)
            assert same(draw._replace(input=x, target=y, extra=[]), sample)


def test_global_random_state_is_left_alone() -> None:
    def state() -> Any:
        return torch.get_rng_state().tolist(), repr(np.random.get_state())  # noqa: NPY002

    before = state()
    loader, sampler = wrapped(tensors(), {"generator": torch.Generator(), "shuffle": True})
    for _ in loader:
        pass
    sampler.set_epoch(1)
    sampler.refresh()
    next(iter(loader))
    assert state() == before


# Training -----------------------------------------------------------------------------------------


def model() -> nn.Linear:
    linear = nn.Linear(2, 3)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[0.1, -0.2], [0.0, 0.1], [0.2, 0.1]]))
        linear.bias.zero_()
    return linear


@pytest.mark.parametrize("kind", ["tuple", "list", "dict", "namedtuple", "dataclass"])
def test_its_dataset_can_be_swept(kind: str) -> None:
    make, own = SHAPES[kind]
    data = [make(i) for i in range(N)]
    if kind == "dict":
        data = [{**item, "image": torch.full((2,), float(i))} for i, item in enumerate(data)]
        data = [{**item, "label": i % 3} for i, item in enumerate(data)]
    fields = (0, 1) if kind in ("tuple", "list", "namedtuple") else ("image", "label")
    plain: DataLoader[Any] = DataLoader(data, batch_size=4, collate_fn=own)  # type: ignore[arg-type]
    loader, sampler = wrap(
        plain, FacilityLocation(), fraction=0.5, weak=plus, strong=negative, fields=fields
    )
    evidence = sweep(model(), loader.dataset, LastLayerGradient())
    assert evidence.labels is not None
    assert evidence.labels.tolist() == [i % 3 for i in range(N)]
    by_hand = sweep(model(), [as_tuple(i)[:2] for i in range(N)], LastLayerGradient())
    assert torch.equal(evidence.require("losses"), by_hand.require("losses"))
    assert torch.equal(evidence.require("proxies").features, by_hand.require("proxies").features)
    assert len(sampler.refresh(evidence)) == N // 2


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loop_changed_by_one_line_reports_and_refreshes(workers: int) -> None:
    loader: Any = DataLoader(tensors(), batch_size=4, shuffle=True, num_workers=workers)
    loader, sampler = augloader.wrap(
        loader, Rank(Loss()), fraction=0.25, refresh=Every(1, warmup=1)
    )
    network = model()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    selected = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        if sampler.refresh_due:
            selected.append(sampler.refresh().indices)
        seen = 0
        for x, y, draw in loader:
            logits = network(x)
            loss = F.cross_entropy(logits, y, reduction="none")
            (loss * draw.weight).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            sampler.report(draw, loss=loss, logits=logits, target=y)
            seen += len(x)
        assert seen == len(sampler) == (N if epoch == 0 else N + 3)
    assert [len(one) for one in selected] == [3, 3]
    assert (sampler.table.visits >= 3).all()


def test_what_the_loss_is_reported_from_may_be_the_index_alone() -> None:
    loader, sampler = wrapped(tensors(), extras="index")
    for _, _, index in loader:
        with pytest.raises(TypeError, match=r"got Tensor\. .*sampler\.table\.report"):
            sampler.report(index, loss=torch.zeros(len(index)))
        break


# What cannot be wrapped ---------------------------------------------------------------------------


class Backwards(SequentialSampler):
    def __iter__(self) -> Iterator[int]:
        return iter(range(N - 1, -1, -1))


def test_a_sampler_of_its_own() -> None:
    data = tensors()
    samplers: list[tuple[Any, str]] = [
        (WeightedRandomSampler([1.0] * N, N), "WeightedRandomSampler"),
        (RandomSampler(data, replacement=True), "RandomSampler with replacement"),
        (RandomSampler(data, num_samples=5), "RandomSampler of 5 of 12 samples"),
        (SubsetRandomSampler(range(5)), "SubsetRandomSampler"),
        (DistributedSampler(range(9), num_replicas=1, rank=0), "DistributedSampler"),  # type: ignore[arg-type]
        (Backwards(data), "Backwards"),
        (list(range(N)), "list"),
        (CoresetSampler(data, Uniform(), fraction=0.5), "CoresetSampler"),
    ]
    for own, name in samplers:
        words = rf"loader must have no sampler of its own, got {name}\. .*shuffle=True.*Subset"
        with pytest.raises(ValueError, match=words):
            wrap(DataLoader(data, sampler=own), Uniform(), fraction=0.5)
    for own in (SequentialSampler(data), RandomSampler(data)):
        wrap(DataLoader(data, sampler=own), Uniform(), fraction=0.5)


def test_batches_of_its_own_or_none() -> None:
    own = BatchSampler(SequentialSampler(range(N)), 3, False)
    loaders: list[DataLoader[Any]] = [
        DataLoader(tensors(), batch_sampler=own),
        DataLoader(tensors(), batch_size=None),
    ]
    for loader in loaders:
        words = "loader must make batches by batch_size, got a batch_sampler of its own or none. "
        with pytest.raises(ValueError, match=words + "Build it over WeightedAugmentedDataset"):
            wrap(loader, Uniform(), fraction=0.5)


class Stream(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(3))


class Other(DataLoader[Any]):
    def __init__(self, data: Any, size: int) -> None:
        super().__init__(data, batch_size=size)


class Deaf(DataLoader[Any]):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "collate_fn": untouched})


def test_what_is_no_such_loader() -> None:
    with pytest.raises(TypeError, match=r"got an IterableDataset. .*load it into a list"):
        wrap(DataLoader(Stream()), Uniform(), fraction=0.5)
    with pytest.raises(
        TypeError, match=r"must be a torch DataLoader, got TensorDataset. Build one"
    ):
        wrap(tensors(), Uniform(), fraction=0.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="data themselves, got a WeightedAugmentedDataset"):
        wrap(DataLoader(WeightedAugmentedDataset(tensors())), Uniform(), fraction=0.5)
    with pytest.raises(TypeError, match=r"arguments of a DataLoader, got Other: .*Build it over"):
        wrap(Other(tensors(), 4), Uniform(), fraction=0.5)
    with pytest.raises(TypeError, match="got Deaf, which has a collate function or sampler of its"):
        wrap(Deaf(tensors()), Uniform(), fraction=0.5)
    with pytest.raises(
        ValueError,
        match="extras must be one of 'draw', 'fields', 'item', 'index', 'none', got 'all'",
    ):
        wrap(DataLoader(tensors()), Uniform(), fraction=0.5, extras="all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"exactly one of fraction and count"):
        wrap(DataLoader(tensors()), Uniform())
    with pytest.raises(ValueError, match="at least 1, got 0 samples"):
        wrap(
            DataLoader(Subset(tensors(), []), sampler=SequentialSampler([])),
            Uniform(),
            fraction=0.5,
        )


@dataclass
class Taken:
    x: Any
    draw: Any = field(default=None)


class Slots:
    __slots__ = ("x",)


Drawn = namedtuple("Drawn", "x draw")


def test_batches_that_nothing_can_be_added_to() -> None:
    data = [{"x": 1.0, "draw": 2} for _ in range(N)]
    known = [
        (default_collate, r"\['x', 'draw'\]"),
        (lambda rows: Taken(rows), r"\['x', 'draw'\]"),
        (lambda rows: Drawn(1, 2), r"\['x', 'draw'\]"),
    ]
    for own, words in known:
        loader, _ = wrapped(data, {"collate_fn": own})
        with pytest.raises(ValueError, match=f"no field 'draw' of their own, got {words}. Rename"):
            next(iter(loader))
        for extras in ("index", "none"):
            loader, _ = wrapped(data, {"collate_fn": own}, extras=extras)
            next(iter(loader))
    loader, _ = wrapped(data, {"collate_fn": lambda rows: Slots()})
    with pytest.raises(TypeError, match=r'objects with attributes, got Slots\. .*extras="none"'):
        next(iter(loader))


def test_a_dataset_that_has_changed() -> None:
    data = [as_tuple(i) for i in range(N)]
    loader, _ = wrapped(data)
    data.append(as_tuple(N))
    with pytest.raises(ValueError, match="data must keep its 12 samples, got 13 now"):
        next(iter(loader))


def test_sending_by_value_ends_in_the_main_process() -> None:
    large = [(torch.full((200_000,), float(i)), i) for i in range(N)]
    for own, kind in ((default_collate, list), (as_pair, tuple)):
        loader, _ = wrapped(large, {"collate_fn": own, "num_workers": 1})
        for batch in loader:
            assert type(batch) is kind
            assert torch.equal(batch[0][:, 0], batch[1].float())
            assert torch.equal(batch[1], batch[2].index)
            batch[1].add_(1)  # what it is given it may write to
    loader, _ = wrapped([{"x": i} for i in range(N)], {"num_workers": 1})
    assert {type(batch) for batch in loader} == {dict}


class Methodical(NamedTuple):
    image: Any
    label: Any

    def first(self) -> Any:
        return self.image[0]


@pytest.mark.parametrize("workers", [0, 1])
def test_named_tuples_keep_their_class(workers: int) -> None:
    items = [Methodical(torch.tensor(float(i)), i) for i in range(6)]
    plain: DataLoader[Any] = DataLoader(items, batch_size=3, num_workers=workers)  # type: ignore[arg-type]
    loader, sampler = wrap(plain, Uniform(), fraction=0.5)
    sampler.refresh()
    for batch in loader:
        assert isinstance(batch, Methodical)
        assert batch.first() == batch.draw.index[0]  # type: ignore[attr-defined]


# Ranks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [2, 3])
def test_a_distributed_sampler_becomes_one_of_ours(world: int) -> None:
    data, drawn = tensors(), []
    for rank in range(world):
        own: Any = DistributedSampler(data, num_replicas=world, rank=rank)
        loader, sampler = wrap(DataLoader(data, 4, sampler=own), Uniform(), fraction=0.5)
        assert isinstance(sampler, DistributedCoresetSampler)
        assert (sampler.num_replicas, sampler.rank) == (world, rank)
        sampler.refresh()
        assert sampler.planned_draws(1) == [len(sampler)]
        drawn += [key for _, _, draw in loader for key in draw.keys[draw.weight > 0].tolist()]
    assert len(set(map(tuple, drawn))) == len(drawn) == N + N // 2


class Repeating:
    """As endless loaders have it: a batch sampler that never ends."""

    def __init__(self, own: Any) -> None:
        self.own = own

    def __len__(self) -> int:
        return len(self.own)

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield from self.own


class Endless(DataLoader[Any]):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        object.__setattr__(self, "batch_sampler", Repeating(self.batch_sampler))


def test_endless_loaders_are_refused() -> None:
    words = r"loader must have no batch sampler of its own, got Repeating.*persistent_workers"
    with pytest.raises(ValueError, match=words):
        wrap(Endless(tensors(), 4), Uniform(), fraction=0.5)


# What lies on images, and their clean view --------------------------------------------------------


def test_whole_items_are_transformed_where_asked() -> None:
    image, mask = torch.rand(3, 8, 8), torch.arange(64).view(8, 8)
    items: Any = [(tv_tensors.Image(image), tv_tensors.Mask(mask))] * N
    plain: DataLoader[Any] = DataLoader(items, 4)
    options: dict[str, Any] = {"strong": v2.RandomHorizontalFlip(1.0), "fraction": 1.0}
    loader, sampler = wrap(plain, Uniform(), joint=True, copies=0, **options)
    sampler.refresh()
    for images, masks, _ in loader:
        assert torch.equal(images[0].as_subclass(Tensor), image.flip(-1))
        assert torch.equal(masks[0].as_subclass(Tensor), mask.flip(-1))
    loader, sampler = wrap(plain, Uniform(), copies=0, **options)
    sampler.refresh()
    with pytest.raises(TypeError, match="Pass joint=True"):
        next(iter(loader))


def blanked(x: Tensor) -> Tensor:
    return x * 0


def test_a_sweep_sees_the_clean_data() -> None:
    model, plain = nn.Linear(2, 3), tensors()
    noisy: Any = [(x + torch.randn(2), y) for x, y in zip(*plain.tensors, strict=True)]
    for clean in (plain, blanked):
        loader, _ = wrap(DataLoader(noisy, 4), Uniform(), fraction=0.5, clean=clean)
        seen = sweep(model, loader.dataset, LastLayerGradient()).losses
        inputs = plain.tensors[0] * (0 if clean is blanked else 1)
        expected = F.cross_entropy(model(inputs), plain.tensors[1], reduction="none")
        assert seen is not None
        torch.testing.assert_close(seen, expected.detach())
