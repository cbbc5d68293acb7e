"""Strong views that are made once a refresh interval, and kept in files that workers share."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from augloader.core.batch import Draw
from augloader.core.checks import kind, require_int, require_seed
from augloader.core.keyed import uniforms
from augloader.core.schedule import Every
from augloader.loading.randomness import Fixed


class Cache:
    """Keeps the item of a strong draw, weakly and strongly augmented, for a refresh interval.

    What is made of (index, copy) at a strength depends on the seed and on the epoch in which its
    interval begins, so it is the same in every epoch of the interval, for any number of workers,
    and after a resume, whether it is kept or made again. Where the next interval begins it differs.
    While it is fetched and made, the random states of torch's CPU, NumPy and Python begin at a seed
    of its own, and are restored, so that random transforms within the wrapped dataset are kept too;
    those that ask for ``keys`` are given the interval's first epoch. One with a private generator
    that is neither must not be kept.

    It is written to a folder of the cache's own, which the worker processes of any start method
    share and which is removed with the cache and its copies in this process (a process that is
    killed leaves it: ``augloader-*``); files of earlier intervals are removed where the next
    begins. Datasets that share a cache have files of their own. Ranks have a cache each. Draws of
    strength 0 and plain indices are made anew each time, and ``final`` is applied to all anew.

    Args:
        every: the sampler's ``refresh``. Selecting out of turn makes no views anew.
        folder: where its folder is made, on a fast disk or in memory (``/dev/shm``); None takes the
            system's folder for temporary files.
        limit: bytes that are kept at most, shared out to the workers; what exceeds a worker's part
            is made again each time, to the same view. None: no limit.
        seed: of the views.

    Raises:
        TypeError: no ``Every``, other types.
        ValueError: a limit below 0, a folder that is not there.
        OSError: where a file cannot be written, as on a full disk; where the folder is gone, as in
            a process that outlives the one that made the cache.

    Memory: on disk, selected samples x copies x the bytes of an item, all of its fields, after the
    transforms; where strengths change within an interval, as by ``StableInfluence``, times the
    epochs, and nothing is gained.

    Cost: a strong draw that is kept: reading a file, the wrapped dataset is not asked; else making
    it and writing one.

    Example:
        >>> import torch
        >>> from augloader import WeightedAugmentedDataset
        >>> images = [(torch.zeros(4), i % 2) for i in range(4)]
        >>> cache = Cache(Every(2))
        >>> data = WeightedAugmentedDataset(images, strong=lambda x: torch.rand(4), cache=cache)
        >>> views = [data[Draw(3, copy=1, epoch=epoch)].input for epoch in (0, 1, 2)]
        >>> torch.equal(views[0], views[1]), torch.equal(views[1], views[2])
        (True, False)
    """

    def __init__(
        self,
        every: Every,
        folder: str | os.PathLike[str] | None = None,
        *,
        limit: int | None = None,
        seed: int = 0,
    ) -> None:
        if not isinstance(every, Every):
            raise TypeError(
                f"every must be an Every, got {kind(every)}. Pass the sampler's refresh=."
            )
        self.every = every
        self.limit = limit if limit is None else require_int("limit", limit, 0, "Give it in bytes.")
        self.seed = require_seed(seed)
        if folder is not None and not Path(folder).is_dir():
            raise ValueError(f"folder must be there, got {str(folder)!r}. Make it first.")
        self._folder = _Folder(folder)
        self._interval: tuple[int, int] | None = None  # the last that this process has seen
        self._room: float = 0.0  # bytes that this process may still write in it

    def __repr__(self) -> str:
        """Return the options."""
        return f"Cache({self.every!r}, limit={self.limit}, seed={self.seed})"

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process or a copy needs, which begins the interval by itself."""
        return {**vars(self), "_interval": None}

    @property
    def _root(self) -> Path:
        return self._folder.path

    @property
    def size(self) -> int:
        """Bytes that are kept now."""
        return sum(_bytes(part) for part in self._root.iterdir())

    def view(self, draw: Draw, make: Callable[[Draw], Any], owner: str = "") -> Any:
        """Return what is kept of a strong draw, or make it and keep it.

        Args:
            draw: with strength above 0, of a sampler's epoch.
            make: returns it for a draw, whose epoch is that in which the interval begins.
            owner: of whom it is kept: the same draw of another one is another view.
        """
        begin = self.every.begin(draw.epoch)
        folder = self._root / str(begin)
        if (os.getpid(), begin) != self._interval:  # a forked worker has a part of its own
            self._begin(begin, folder)
        strength = np.float32(draw.strength).tobytes().hex()
        path = folder / f"{draw.index}-{draw.copy}-{int(draw.weak)}-{strength}-{owner}"
        try:
            return pickle.loads(path.read_bytes())
        except FileNotFoundError:
            pass
        keys = np.array([[begin, draw.index, draw.copy]], np.int64)
        with Fixed(int(uniforms(self.seed, keys, 1)[0, 0] * 2**53)):
            made = make(draw._replace(epoch=begin))
        content = _pickled(made)
        if len(content) <= self._room:
            self._room -= len(content)
            self._write(path, content)
        return made

    def _write(self, path: Path, content: bytes) -> None:
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        try:
            partial.write_bytes(content)
            partial.replace(path)  # at once: no process reads half of it
        except FileNotFoundError:  # another process has begun the next interval
            pass
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise OSError(
                error.errno,
                f"folder must have room for all that is kept, got {error.strerror!r} after "
                f"{self.size:,} bytes. Give a limit below that, or another folder",
                str(self._root),
            ) from error

    def _begin(self, begin: int, folder: Path) -> None:
        """Begin an interval in this process: remove others, see how much may be written."""
        if not self._root.is_dir():
            raise FileNotFoundError(
                f"folder must be there while the cache is used, got {str(self._root)!r}, which is "
                "gone with the process that made the cache. Build the Cache where it is used."
            )
        for other in self._root.iterdir():
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)
        folder.mkdir(exist_ok=True)
        self._interval = os.getpid(), begin
        info = get_worker_info()
        workers = 1 if info is None else info.num_workers
        limit = float("inf") if self.limit is None else self.limit
        self._room = max(0.0, limit - _bytes(folder)) / workers


class _Folder:
    """A folder that is removed with the last of the caches in this process that share it."""

    def __init__(self, parent: str | os.PathLike[str] | None) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="augloader-", dir=parent))
        self._remover: Any = weakref.finalize(self, _remove, self.path, os.getpid())

    def __deepcopy__(self, memo: dict[int, Any]) -> _Folder:
        """Return the same."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs, which does not remove it."""
        return {"path": self.path, "_remover": None}


class _Pickler(pickle.Pickler):
    """Writes of a tensor that is a part of another only that part."""

    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.layout is not torch.strided:
            return NotImplemented
        if value.untyped_storage().nbytes() <= value.nbytes:
            return NotImplemented
        return value.clone().__reduce_ex__(pickle.HIGHEST_PROTOCOL)


def _pickled(value: Any) -> bytes:
    content = io.BytesIO()
    _Pickler(content, pickle.HIGHEST_PROTOCOL).dump(value)
    return content.getvalue()


def require_interval(data: Any, refresh: Every) -> None:
    """Raise ValueError unless a dataset's cache has the intervals of a sampler."""
    cache = getattr(data, "cache", None)
    if isinstance(cache, Cache) and cache.every != refresh:
        raise ValueError(
            f"refresh must be that of the dataset's cache, {cache.every!r}, got {refresh!r}. Build "
            "both with the same Every."
        )


def _bytes(folder: Path) -> int:
    """Return the bytes of the files in a folder, but for those that are removed meanwhile."""
    total = 0
    try:
        for entry in os.scandir(folder):
            try:
                total += entry.stat().st_size
            except FileNotFoundError:
                continue
    except FileNotFoundError:
        pass
    return total


def _remove(root: Path, owner: int) -> None:
    if os.getpid() == owner:  # not a worker that was forked
        shutil.rmtree(root, ignore_errors=True)
