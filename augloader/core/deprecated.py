"""Names of the previous release: they work until the next one, with a DeprecationWarning."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from operator import attrgetter
from typing import Any, TypeVar
from warnings import warn

_Called = TypeVar("_Called", bound=Callable[..., Any])


def renamed(**names: str) -> Callable[[_Called], _Called]:
    """Return a decorator that takes keywords by former names: ``renamed(old="new")``.

    Of a class it decorates ``__init__``.

    Raises:
        TypeError: when called, with an argument by both names.

    Example:
        >>> import warnings
        >>> @renamed(gamma="alpha")
        ... def half(alpha):
        ...     return alpha / 2
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     half(gamma=1.0)
        0.5
        >>> str(caught[0].message)
        'gamma is now called alpha.'
    """

    def decorate(called: Any) -> Any:
        if isinstance(called, type):
            called.__init__ = decorate(called.__init__)  # type: ignore[misc]
            return called

        @wraps(called)
        def call(*args: Any, **given: Any) -> Any:
            for old in names.keys() & given.keys():
                if names[old] in given:
                    raise TypeError(
                        f"{names[old]} must be given once, got it as {old} too. Leave {old} out."
                    )
                warn(f"{old} is now called {names[old]}.", DeprecationWarning, stacklevel=2)
                given[names[old]] = given.pop(old)
            return called(*args, **given)

        return call

    return decorate


def formerly(old: str, new: str) -> Any:
    """Return a property that is an attribute's former name; the new one may be of a part, "a.b".

    Example:
        >>> class Mixer:
        ...     alpha = 1.0
        ...     gamma = formerly("gamma", "alpha")
        >>> import warnings
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     Mixer().gamma
        1.0
    """

    def read(self: Any) -> Any:
        warn(f"{old} is now called {new}.", DeprecationWarning, stacklevel=2)
        return attrgetter(new)(self)

    return property(read, doc=f"Former name of {new}.")
