"""Reports whose values are on their way from a GPU: stored before anything of them is read."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from threading import RLock
from typing import Any, Generic, TypeVar, overload

import torch
from torch import Tensor

from augloader.core.batch import mapped
from augloader.core.changes import Changes

T = TypeVar("T")
_MOST = 8  # reports under way: the host then waits for the oldest, or pinned memory would grow


class Pending:
    """Reports under way, in order; pickled, there are none.

    A copy into page-locked memory is begun where a report is made, and the host goes on. It is over
    when the GPU has come so far, as a rule within a step.

    Attributes:
        lock: held where a report changes anything, so that those of several threads come one after
            the other.
    """

    def __init__(self) -> None:
        self._reports: deque[tuple[list[torch.cuda.Event], Callable[[], Changes]]] = deque()
        self._storing = False
        self.lock = RLock()

    def __reduce__(self) -> tuple[type[Pending], tuple[()]]:
        """Pickle as one without reports."""
        return Pending, ()

    def added(self, store: Callable[..., Changes], *values: Any) -> Changes:
        """Return what has ``store`` called with copies on the CPU, when these have arrived.

        Args:
            store: takes the copies, and returns what they change.
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
        report, changes, reports = (events, lambda: store(*copies)), Changes(), self._reports

        def undo() -> None:
            if reports and reports[-1] is report:
                reports.pop()

        changes.step(lambda: reports.append(report), undo)
        return changes

    def settle(self, wait: bool = True) -> None:
        """Store what has arrived, or wait for all that is under way.

        Raises:
            Exception: what storing raises; that report is left out, and the others stay.
        """
        with self.lock:
            while self._reports and not self._storing:
                report = events, store = self._reports[0]
                wanted = wait or len(self._reports) > _MOST
                for event in events:
                    if not event.query():
                        if not wanted:
                            return
                        event.synchronize()
                self._storing = True
                try:
                    changes = store()
                    changes.step(self._reports.popleft, partial(self._put_back, report))
                    changes.make()
                except Exception:
                    self._reports.popleft()
                    raise
                finally:
                    self._storing = False

    def _put_back(self, report: Any) -> None:
        if not self._reports or self._reports[0] is not report:
            self._reports.appendleft(report)


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


def on_gpu(*values: Any) -> bool:
    """Return whether some of the values are tensors on a CUDA device."""
    return any(isinstance(value, Tensor) and value.is_cuda for value in values)
