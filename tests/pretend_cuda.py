"""A CUDA device that is only pretended: its rules and its waits, with the CPU's arithmetic.

    with pretend_cuda() as gpu:
        model, x = model.to("cuda"), x.to("cuda")  # x.device is cuda:0, x.is_cuda is True
        model(x) + torch.zeros(1, 2)  # raises: tensors of two devices
        float(model(x).sum())
        print(gpu.report())  # item      1  my_script.py:4 <module>
    python -m pytest -p tests.pretend_cuda -m "gpu and not triton" tests

A tensor on the pretended device is a torch.Tensor of PyTorch's *meta* device whose storage holds,
as an attribute, a storage on the CPU with the values: views, autograd, modules and optimizers are
PyTorch's own. A TorchDispatchMode runs all other operations on the values. Its rules:

    Devices.  An operation on tensors of both devices raises, but for CPU numbers of no dimension
        and CPU indices into CUDA tensors; so do ``.numpy()`` and a generator of the CPU.
    Waits.  Counted, by line, is where the host waits for the device: ``item``, copies, masks,
        ``nonzero``, ``unique``, ``bincount``, ``synchronize``, of an event as well. Under
        ``torch.cuda.set_sync_debug_mode("error")`` they raise.
    Copies.  What ``.to("cpu", non_blocking=True)`` or a copy into pinned memory returns is garbage
        until the host waits, or an event that was recorded behind it is found over. An event is
        over as soon as it is asked for, or after ``gpu.behind`` questions more. A copy from pinned
        memory that was written to before such a moment raises there.
    Graphs.  What a CUDA graph captures has not happened; waiting and pageable copies raise; a
        replay works on the memory of the capture. ``torch.compile(mode="reduce-overhead")``
        overwrites what it returned last.

``torch.autocast`` casts for the most frequent functions. Not pretended: rounding, Triton's kernels
(see ``ByHand``), races between streams, memory limits, several devices, other threads and
processes, the meta device proper.
"""

from __future__ import annotations

import contextlib
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

aten, CUDA, META = torch.ops.aten, torch.device("cuda", 0), torch.device("meta")
_raw: Any = torch._C.TensorBase  # whose attributes are not patched
_OWN = {__file__, contextlib.__file__}
_TORCH = str(Path(torch.__file__).parent)
_VALUE_READ = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_MORE_READ = (aten._linalg_check_errors, aten._linalg_eigh, aten._linalg_svd, aten.isin)
_INDEXING = (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_)
_LOW = "linear conv1d conv2d conv3d matmul __matmul__ __rmatmul__ mm bmm addmm baddbmm einsum"
_HIGH = "cross_entropy nll_loss mse_loss softmax log_softmax exp log sum prod cumsum norm cdist"


def on_device(x: Any) -> bool:
    """Return whether x is a tensor on the pretended device."""
    return isinstance(x, Tensor) and _raw.device.__get__(x).type in ("meta", "cuda")


def values(x: Any) -> Any:
    """Return a CPU tensor that shares the values of one on the device; all else as it is."""
    if not on_device(x):
        return x
    storage = x.untyped_storage()
    if storage.values.nbytes() < storage.nbytes():  # after resize_
        storage.values.resize_(storage.nbytes())
    place = x.storage_offset(), x.size(), x.stride()
    return torch.empty(0, dtype=x.dtype).set_(storage.values, *place)


def moved(x: Tensor) -> Tensor:
    """Return a tensor on the device that takes over the memory of one on the CPU."""
    x = x.clone() if x.storage_offset() else x
    made = torch.empty_strided(x.size(), x.stride(), dtype=x.dtype, device="meta")
    made.untyped_storage().values = x.untyped_storage()  # type: ignore[attr-defined]
    return made


def memory(x: Tensor) -> Any:
    """Return the storage of the values; ``fill_(0xFF)`` makes them NaN or -1."""
    return values(x).untyped_storage()


def pinned(x: Tensor, device: Any = None) -> bool:
    """Return whether a tensor is in pretended page-locked memory."""
    return getattr(x.untyped_storage(), "pinned", False)


def version(x: Tensor) -> int:
    """Return how often a tensor was written to, as far as PyTorch counts."""
    return 0 if x.is_inference() else x._version


def each(parts: Any) -> Iterator[Any]:
    """Yield an operation's arguments, or what it returned, and what is in lists of them."""
    for part in parts if isinstance(parts, list | tuple) else (parts,):
        if isinstance(part, list | tuple):
            yield from part
        else:
            yield part


def mapped(change: Callable[[Any], Any], parts: Any) -> Any:
    """Return what ``each`` goes through, changed."""
    if isinstance(parts, list | tuple):
        return type(parts)(mapped(change, part) for part in parts)
    return change(parts)


@dataclass
class ByHand:
    """A Triton kernel that runs on the values: ByHand(fused._render), with TRITON_INTERPRET=1."""

    kernel: Any

    def __getitem__(self, grid: Any) -> Callable[..., Any]:
        return lambda *args, **options: self.kernel[grid](*map(values, args), **options)


class Gpu(TorchDispatchMode):
    """The device, and what was done on it."""

    def __init__(self, where: Callable[[str], bool]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.where, self.debug = where, ""
        self.graph: list[tuple[Any, ...]] | None = None  # what is captured, while it is
        self.before: dict[int, tuple[Any, Any]] = {}  # memory that the capture wrote to
        self.pending: list[tuple[int, Tensor, Any]] = []  # copies of pinned memory under way
        self.begun = 0  # number of such copies so far
        self.behind = 0  # how often an event says that it is not over yet
        self.random = torch.Generator().manual_seed(0).get_state()
        self.waits: Counter[tuple[str, str]] = Counter()  # (what, "file:line function")
        self.copies: Counter[tuple[str, str]] = Counter()  # those that the host did not wait for
        self.kernels = 0  # operations but for views: one kernel or more each

    def clear(self) -> None:
        self.waits, self.copies, self.kernels = Counter(), Counter(), 0

    def report(self) -> str:
        lines = [f"{what:16}{count:5}  {at}" for (what, at), count in self.waits.most_common()]
        total = f"{self.waits.total()} waits, {self.copies.total()} other copies"
        return "\n".join([*lines, f"{total}, {self.kernels} operations"])

    def line(self) -> str:
        for frame, line in traceback.walk_stack(None):
            name = frame.f_code.co_filename
            if name not in _OWN and not name.startswith(_TORCH) and self.where(name):
                return f"{Path(name).name}:{line} {frame.f_code.co_name}"
        return "elsewhere"

    def wait(self, what: str, count: int | None = None) -> None:
        """Count a wait; all that was under way has arrived then, or the first of the copies."""
        if self.graph is not None:
            raise RuntimeError(f"operation not permitted when stream is capturing: {what}")
        self.waits[what, self.line()] += 1
        if self.debug == "error" and what != "synchronize":
            raise RuntimeError(f"called a synchronizing CUDA operation: {what}")
        self.arrive(self.begun if count is None else count)

    def arrive(self, count: int) -> None:
        """Let the first of the copies that were begun arrive."""
        over = [copy for copy in self.pending if copy[0] <= count]
        self.pending = [copy for copy in self.pending if copy[0] > count]
        for _, x, given in over:
            if isinstance(given, Tensor):
                x.copy_(given)
            elif version(x) != given:
                raise RuntimeError("pinned memory was written to before its copy was over")

    def copied(self, x: Tensor, to: Tensor, later: bool) -> Tensor:
        """Account for a copy of x to a tensor on the other device; later, when the host waits."""
        self.kernels += 1
        if self.graph is not None and not (pinned(x) or pinned(to)):
            raise RuntimeError("operation not permitted when stream is capturing: pageable copy")
        way = "copy to GPU" if on_device(to) else "copy to CPU"
        if not later:
            self.wait(way)
            return to
        self.copies[way + ", pinned" * pinned(x), self.line()] += 1
        if not on_device(to):
            self.begun += 1
            self.pending.append((self.begun, to, to.clone()))
            memory(to).fill_(0xFF)
        elif pinned(x):
            self.begun += 1
            self.pending.append((self.begun, x, version(x)))
        return to

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunction():  # what is done here is not what was asked for
            return self.dispatched(func, args, kwargs or {})

    def dispatched(self, func: Any, args: Any, kwargs: Any) -> Any:
        packet = func.overloadpacket
        if func.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd):
            with self:  # in inference mode what is made of other operations comes as a whole
                return func.decompose(*args, **kwargs)
        tensors = [x for x in each((*args, *kwargs.values())) if isinstance(x, Tensor)]
        there = [x for x in tensors if on_device(x)]
        asked = kwargs.get("device")
        wanted = bool(there) if asked is None else asked.type in ("cuda", "meta")
        if not there and not wanted:
            return func(*args, **kwargs)
        if packet is aten._to_copy and wanted != bool(there):
            kept = {name: kwargs[name] for name in ("dtype", "memory_format") if name in kwargs}
            made = aten._to_copy.default(values(args[0]), **kept)
            later = bool(kwargs.get("non_blocking"))
            if later and not wanted:
                memory(made).pinned = True  # as PyTorch does
            return self.copied(args[0], moved(made) if wanted else made, later)
        if packet is aten.copy_ and len(there) == 1:
            to, source, *rest = args
            values(to).copy_(values(source))
            return self.copied(source, to, rest == [True] and (on_device(to) or pinned(to)))
        infos = [a.alias_info for a in func._schema.arguments if a.alias_info is not None]
        view = infos and not any(info.is_write for info in infos)
        if view or torch.Tag.inplace_view in func.tags:
            return func(*args, **kwargs)  # shares the storage, and so the values
        self.check(func, packet, args, kwargs, len(there) < len(tensors))
        self.kernels += 1
        if "device" in kwargs:
            kwargs = kwargs | {"device": torch.device("cpu"), "pin_memory": None}
        return (self.run if self.graph is None else self.capture)(func, args, kwargs)

    def check(self, func: Any, packet: Any, args: Any, kwargs: Any, mixed: bool) -> None:
        """Raise where a GPU would; count where the host waits."""
        if isinstance(kwargs.get("generator"), torch.Generator):
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        indexing, least = packet in _INDEXING, int(packet not in (aten.cat, aten.stack))
        indices = [i for i in args[1] if i is not None] if indexing else []
        places = (args[0], *args[2:]) if indexing else args
        operands = each((*places, *kwargs.values()))
        alien = [x for x in operands if isinstance(x, Tensor) and not on_device(x)]
        if mixed and (any(x.ndim >= least for x in alien) or (indexing and not on_device(args[0]))):
            raise RuntimeError(f"Expected all tensors to be on the same device, got two for {func}")
        filled = indexing and len(args) > 2 and args[2].numel() == 1  # then masked_fill does it
        for i in indices:
            if not on_device(i):
                self.wait("index to GPU")
            elif i.dtype in (torch.bool, torch.uint8) and not filled:
                self.wait("mask")
        told = indexing or kwargs.get("output_size") is not None  # of repeat_interleave
        if packet in _MORE_READ or not (told or _VALUE_READ.isdisjoint(func.tags)):
            self.wait(packet.__name__.replace("_local_scalar_dense", "item"))

    def run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operation on the values; return what it returns, on the device."""
        own: list[tuple[Any, Any]] = []

        def inner(x: Any) -> Any:
            if not on_device(x):
                return x
            own.append((values(x), x))
            return own[-1][0]

        def outer(x: Any) -> Any:
            known = [given for found, given in own if found is x]
            return known[0] if known else moved(x) if isinstance(x, Tensor) else x

        given = mapped(inner, args), {name: mapped(inner, x) for name, x in kwargs.items()}
        out = self.computed(func, *given)
        for found, x in own:
            if found.shape != x.shape:  # an out= of another shape
                values(x.resize_(found.shape)).copy_(found)
        made = mapped(outer, out)
        if self.graph is not None:
            old = [x for _, x in own]
            there = [x for x in each(made) if on_device(x)]
            kept = [None if any(x is y for y in old) else values(x) for x in there]
            self.graph.append((func, *given, kept))
        return made

    def computed(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Return what an operation gives on the CPU, by the device's random numbers."""
        host = torch.get_rng_state()
        torch.set_rng_state(self.random)
        try:
            return func(*args, **kwargs)
        finally:
            self.random = torch.get_rng_state()
            torch.set_rng_state(host)

    def capture(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Put an operation into the graph; what it did is undone where the capture ends."""
        there = [x for x in each((*args, *kwargs.values())) if on_device(x)]
        undone = [(whole, whole.clone()) for whole in map(memory, there)]
        out = self.run(func, args, kwargs)
        fresh = [x for x in each(out) if on_device(x) and not any(x is y for y in there)]
        undone += [(whole, whole.clone().fill_(0xFF)) for whole in map(memory, fresh)]
        self.before = {whole._cdata: (whole, before) for whole, before in undone} | self.before
        return out

    def replay(self, graph: list[tuple[Any, ...]]) -> None:
        """Run a captured graph on the memory that it was captured with."""
        with _disable_current_modes():
            for func, args, kwargs, kept in graph:
                again = each(self.computed(func, args, kwargs))
                for to, x in zip(kept, (x for x in again if isinstance(x, Tensor)), strict=True):
                    if to is not None:
                        to.copy_(x)


class _Calls(TorchFunctionMode):
    """What must be done above autograd: lists as indices made tensors, and autocast's casts."""

    dtypes: dict[str, torch.dtype] = {}  # noqa: RUF012 - of arguments, by function

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def cast(x: Any) -> Any:
            fits = on_device(x) and x.is_floating_point() and x.dtype != torch.float64
            return x.to(dtype) if fits else x

        dtype = self.dtypes.get(getattr(func, "__name__", ""))
        if func in (_raw.__getitem__, _raw.__setitem__) and on_device(args[0]):
            whole = args[1] if isinstance(args[1], tuple) else (args[1],)
            index = (torch.tensor(i).to(META) if isinstance(i, list) else i for i in whole)
            args = args[0], tuple(index), *args[2:]
        return func(*(args if dtype is None else tree_map(cast, args)), **(kwargs or {}))


@contextmanager
def pretend_cuda(where: Callable[[str], bool] = lambda name: True) -> Iterator[Gpu]:
    """Pretend a CUDA device in this thread; ``where`` chooses whose lines are named, by file."""
    gpu, calls, plain_autocast = Gpu(where), _Calls(), torch.autocast
    plain: Any = SimpleNamespace(repr=Tensor.__repr__, clone=torch.UntypedStorage.clone)

    def gives(value: Any) -> Callable[..., Any]:
        return lambda *args, **kwargs: value

    class Stream:  # and graph
        __init__ = wait_stream = wait_event = record_event = gives(None)
        query, graph = gives(True), list[Any]()
        is_capturing = lambda self: gpu.graph is not None  # noqa: E731
        synchronize = lambda self: gpu.wait("synchronize")  # noqa: E731
        replay = lambda self: gpu.replay(self.graph)  # noqa: E731

    class Event:
        wait, elapsed_time, copies, asked = gives(None), gives(1.0), 0, 0
        __init__ = gives(None)

        def record(self, stream: Any = None) -> None:
            self.copies, self.asked = gpu.begun, 0

        def query(self) -> bool:
            self.asked += 1
            if self.asked > gpu.behind:
                gpu.arrive(self.copies)
            return self.asked > gpu.behind

        def synchronize(self) -> None:
            gpu.wait("synchronize", self.copies)

    @contextmanager
    def graph(made: Any, *args: Any, **options: Any) -> Iterator[None]:
        gpu.wait("synchronize")
        made.graph = gpu.graph = []
        gpu.before = {}
        try:
            yield
        finally:
            gpu.graph = None
            for whole, before in gpu.before.values():
                whole.copy_(before)

    def set_sync_debug_mode(mode: str) -> None:
        if not gpu.debug:  # once a process
            warnings.warn("Synchronization debug mode is a prototype feature", stacklevel=2)
        gpu.debug = mode

    def autocast(kind: str, dtype: Any = None, enabled: bool = True, **rest: Any) -> Any:
        if kind != "cuda":
            return plain_autocast(kind, dtype, enabled, **rest)
        low = dict.fromkeys(_LOW.split(), dtype or torch.float16)
        casts = low | dict.fromkeys(_HIGH.split(), torch.float32)
        return patch.object(calls, "dtypes", casts if enabled else calls.dtypes)

    def compiled(model: Any, *, mode: str | None = None, **options: Any) -> Any:
        last: list[Tensor] = []

        def called(*args: Any, **kwargs: Any) -> Any:
            for x in last:  # as its CUDA graph does
                memory(x).fill_(0xFF)
            out = model(*args, **kwargs)
            last[:] = [x.detach() for x in tree_leaves(out) if on_device(x)]
            return out

        return called if mode == "reduce-overhead" else model

    def there(device: Any) -> Any:  # not asking a driver which device "cuda" is
        named = device.type if isinstance(device, torch.device) else device
        return META if isinstance(named, str) and named.split(":")[0] == "cuda" else device

    def to(x: Tensor, *args: Any, **rest: Any) -> Any:
        return _raw.to(x, *map(there, args), **{k: there(v) for k, v in rest.items()})

    def makes(plain: Callable[..., Tensor]) -> Callable[..., Any]:
        def make(data: Any, *args: Any, device: Any = None, **rest: Any) -> Any:
            made = data if on_device(data) else plain(data, *args, **rest)
            return to(made, device or made.device, rest.get("dtype") or made.dtype)

        return make

    def pin(x: Tensor, device: Any = None) -> Tensor:
        if on_device(x):
            raise RuntimeError("cannot pin a CUDA tensor, only dense CPU tensors can be pinned")
        made = x if pinned(x) else x.detach().clone()
        memory(made).pinned = True
        return made

    def shown(x: Tensor, *args: Any, **options: Any) -> Any:
        if on_device(x):
            gpu.wait("print")
            return plain.repr(values(x.detach()))[:-1] + ", device='cuda:0')"
        return plain.repr(x, *args, **options)

    def cloned(storage: Any) -> Any:  # by copy.deepcopy
        if not hasattr(storage, "values"):
            return plain.clone(storage)
        return moved(torch.empty(0).set_(storage.values.clone())).untyped_storage()

    parts: tuple[tuple[str, Callable[[], Any]], ...] = (  # Dynamo wants a function for each name
        ("_lazy_init set_device empty_cache set_device_index", lambda: gives(None)),
        ("current_device memory_allocated max_memory_allocated", lambda: gives(0)),
        ("is_available is_bf16_supported device_count", lambda: gives(True)),
        ("device device_of stream", lambda: lambda given: nullcontext()),
        ("current_stream default_stream", lambda: gives(Stream())),
        ("Stream CUDAGraph", lambda: Stream),
        ("Event", lambda: Event),
        ("synchronize", lambda: lambda device=None: gpu.wait("synchronize")),
        ("get_device_name", lambda: gives("pretended")),
        ("get_device_capability", lambda: gives((9, 0))),
        ("mem_get_info", lambda: gives((64 << 30, 80 << 30))),
    )
    cuda = {name: make() for names, make in parts for name in names.split()}
    cuda |= {"graph": graph, "is_current_stream_capturing": Stream().is_capturing}
    cuda |= {"set_sync_debug_mode": set_sync_debug_mode}
    accelerator = {k: cuda[k] for k in ("is_available", "current_stream", "set_device_index")}
    functions = {"tensor": makes(torch.tensor), "as_tensor": makes(torch.as_tensor)}
    functions |= {"autocast": autocast, "compile": compiled}
    tensors = {"to": to, "pin_memory": pin, "is_pinned": pinned, "__repr__": shown} | {
        "device": property(lambda x: CUDA if on_device(x) else _raw.device.__get__(x)),
        "is_cuda": property(on_device),
        "is_meta": property(gives(False)),
        "cuda": lambda x, device=None, non_blocking=False: to(x, META, non_blocking=non_blocking),
        "data_ptr": lambda x: _raw.data_ptr(values(x)),
    }
    future = {"_swap_module_params_on_conversion": True}  # .to() keeps a module's parameters
    with ExitStack() as stack:
        patches = ((Tensor, tensors), (torch, functions), (torch.cuda, cuda))
        more = ((torch.accelerator, accelerator), (torch.__future__, future))
        for owner, names in (*patches, *more, (torch.UntypedStorage, {"clone": cloned})):
            for name, seen in names.items():
                stack.enter_context(patch.object(owner, name, seen, create=True))
        stack.enter_context(calls)
        yield stack.enter_context(gpu)


RUNNING = pytest.StashKey[Gpu]()  # in the stash of a run for which a device is pretended


def pytest_configure(config: Any) -> None:
    """Pretend for all of a run of pytest that was given this module as a plugin."""
    stack = ExitStack()
    config.stash[RUNNING] = stack.enter_context(pretend_cuda())
    config.add_cleanup(stack.close)
