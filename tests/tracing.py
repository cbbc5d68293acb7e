"""Interrupts at a chosen point of the library's code."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def interrupted(call: Callable[[], object], at: int, inside: str, event: str = "line") -> int:
    """Call with KeyboardInterrupt raised at the ``at``-th event; return how many there were.

    Args:
        call: what is called.
        at: counted from 1.
        inside: what the paths of the files begin with whose events count.
        event: "line", or "opcode", an instruction.
    """
    count = 0

    def trace(frame: FrameType, what: str, arg: Any) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.startswith(inside):
            return None
        frame.f_trace_opcodes = event == "opcode"
        if what == event:
            count += 1
            if count == at:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return count
