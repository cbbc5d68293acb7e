"""Reports whose values are on their way from a GPU: stored before anything of them is read."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

import torch
from torch import Tensor

from augloader.core.batch import mapped

T = TypeVar("T")
_MOST = 8  # reports under way: the host then waits for the oldest, or pinned memory would grow


class Pending:
    """Reports under way, in order.

    A copy into page-locked memory is begun where a report is made, and the host goes on. It is over
    when the GPU has come so far, as a rule within a step.
    """

    def __init__(self) -> None:
        self._reports: deque[tuple[list[torch.cuda.Event], Callable[[], None]]] = deque()
        self._storing = False

    def add(self, store: Callable[..., None], *values: Any) -> None:
        """Have ``store`` called with copies of some values on the CPU, when these have arrived.

        Args:
            store: takes the copies.
            values: tensors on any device, or what holds some, which may change from now on.
        """
        devices = set()

        def copied(part: Tensor) -> Tensor:
            if part.is_cuda:
                devices.add(part.device)
            return part.detach().to("cpu", non_blocking=True, copy=True)

        copies, events = mapped(copied, values), []
        for device in devices:
            events.append(torch.cuda.Event())
            events[-1].record(torch.cuda.current_stream(device))
        self._reports.append((events, lambda: store(*copies)))

    def settle(self, wait: bool = True) -> None:
        """Store what has arrived, or wait for all that is under way.

        Raises:
            Exception: what storing raises; that report is left out, and the others stay.
        """
        while self._reports and not self._storing:
            events, store = self._reports[0]
            wanted = wait or len(self._reports) > _MOST
            for event in events:
                if not event.query():
                    if not wanted:
                        return
                    event.synchronize()
            self._reports.popleft()
            self._storing = True
            try:
                store()
            finally:
                self._storing = False


class Settled(Generic[T]):
    """An attribute that is read when all reports under way were stored, of what has ``pending``."""

    def __set_name__(self, owner: type, name: str) -> None:
        """Keep the value under the attribute's own name."""
        self._name = name

    @overload
    def __get__(self, holder: None, owner: type) -> Settled[T]: ...

    @overload
    def __get__(self, holder: Any, owner: type) -> T: ...

    def __get__(self, holder: Any, owner: type) -> Any:
        """Return the value, with what was reported until now."""
        if holder is None:
            return self
        holder.pending.settle()
        return vars(holder)[self._name]

    def __set__(self, holder: Any, value: T) -> None:
        """Replace the value."""
        vars(holder)[self._name] = value


def on_gpu(values: Any) -> bool:
    """Return whether some tensor, or one in what holds some, is on a CUDA device."""
    found = [False]

    def seen(part: Tensor) -> Tensor:
        found.append(part.is_cuda)
        return part

    mapped(seen, values)
    return any(found)
