"""Locks between processes; the operating system frees them when their holder ends, however it ends."""

import fcntl
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path


def exclusive(path: Path) -> AbstractContextManager[None]:
    """Hold the lock file ``path``, creating it and its folder as needed; wait while another process holds it."""
    return _held(path, fcntl.LOCK_EX)


def shared(path: Path) -> AbstractContextManager[None]:
    """Hold the lock file ``path`` together with others; wait while another process holds it alone."""
    return _held(path, fcntl.LOCK_SH)


@contextmanager
def _held(path: Path, operation: int) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, operation)
        yield


@contextmanager
def alone(path: Path) -> Iterator[bool]:
    """Hold the lock file ``path`` if nobody else holds it, shared or not; yields whether that is so, without waiting."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
