"""WIKISTREAM_HOME: its layout, its format version, its secret, and its locks.

Belongs here: what is true of the folder as a whole. Does not belong here: what the catalog, the broker or Dagster write into
their parts of it.
"""

import errno
import fcntl
import json
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TextIO

from wikistream_assets.embedded.causes import with_advice
from wikistream_assets.exceptions import LakeError, WriterBusyError
from wikistream_assets.settings import Settings

FORMAT_VERSION: Final = 1
"""What this version of WikiStream reads and writes; ``lake.json`` says what a home holds."""

FOLDERS: Final = ("warehouse", "kafka", "checkpoints", "dagster", "logs", "run")

_PRIVATE: Final = 0o700
_PROBE_ATTEMPTS: Final = 50
_PROBE_PAUSE_SECONDS: Final = 0.01


def open_home(settings: Settings) -> Path:
    """Return the home's absolute path, after creating what is missing of its layout; opening twice changes nothing.

    ``lake.json`` is written last: a home without it is one whose creation was cut short, and is completed here.

    Raises:
        LakeError: the folder is of a format this version does not read, is not a WikiStream home, or cannot be written.
    """
    root = settings.root
    try:
        known = _check_format(root)
        for folder in FOLDERS:
            (root / folder).mkdir(parents=True, exist_ok=True)
        _secret_folder(root).mkdir(mode=_PRIVATE, exist_ok=True)
        if not known:
            _create_once(_secret_folder(root) / "user_key", secrets.token_hex(32))
            created_at = datetime.now(UTC).isoformat(timespec="seconds")
            _create_once(root / "lake.json", json.dumps({"format_version": FORMAT_VERSION, "created_at": created_at}))
    except OSError as error:
        raise unusable(root, error) from None
    return root


def inspect_home(settings: Settings) -> str:
    """Return in a few words what the home is, without changing it.

    Raises:
        LakeError: as ``open_home``.
    """
    root = settings.root
    parent = next(folder for folder in (root, *root.parents) if folder.is_dir())
    if not os.access(parent, os.W_OK | os.X_OK):
        raise unusable(root, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    return f"{root}, lake format {FORMAT_VERSION}" if _check_format(root) else f"{root}, not created yet"


def unusable(path: Path, error: OSError) -> LakeError:
    """Return the one-line error for a home that the operating system does not let us write."""
    advice = with_advice("set WIKISTREAM_HOME to another folder", error)
    return LakeError(f"{path} cannot be written ({error.strerror}): {advice}")


def user_key(settings: Settings) -> bytes:
    """Return this home's key for hashing the addresses of IP users: 32 bytes, never leaving the home.

    Raises:
        LakeError: the key is gone. A new one would give every known address a second name, so none is made up.
    """
    path = _secret_folder(open_home(settings)) / "user_key"
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # of a text that is not ASCII, or not hexadecimal
        key = b""
    if len(key) != 32:
        raise LakeError(
            f"{path} is missing or damaged: restore it from a backup, or write a new one with "
            f"'openssl rand -hex 32 > {path}' (IP users then get new hashes)"
        )
    return key


@contextmanager
def writer_lock(settings: Settings, name: str) -> Iterator[None]:
    """Hold the home's lock ``name``; the operating system frees it when the process ends, however it ends.

    Args:
        settings: for the home.
        name: what is locked, e.g. ``bronze.raw_events``.

    Raises:
        WriterBusyError: another process holds it; the text names that process.
    """
    path = _lock_path(open_home(settings), name)
    with path.open("a+", encoding="ascii") as file:
        _take(file, name)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def is_locked(settings: Settings, name: str) -> bool:
    """Tell whether some process holds the lock ``name`` right now."""
    path = _lock_path(settings.root, name)
    if not path.exists():
        return False
    with path.open("r") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _lock_path(root: Path, name: str) -> Path:
    return root / "run" / f"{name}.lock"


def _take(file: TextIO, name: str) -> None:
    # is_locked looks by taking a shared lock for some microseconds; such a look must not be mistaken for a writer
    for _ in range(_PROBE_ATTEMPTS):
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(_PROBE_PAUSE_SECONDS)
    file.seek(0)
    holder = file.read().strip() or "unknown"
    raise WriterBusyError(
        f"{name} is being written by process {holder}: wait for it or stop it (kill {holder}), only one may write"
    )


def _secret_folder(root: Path) -> Path:
    return root / "secrets"


def _check_format(root: Path) -> bool:
    """Return whether ``root`` is a complete home of this format, False if it is new or was cut short."""
    path = root / "lake.json"
    if not path.exists():
        _refuse_foreign_folder(root)
        return False
    try:
        version = json.loads(path.read_text(encoding="utf-8"))["format_version"]
    except (ValueError, KeyError, TypeError):
        raise LakeError(
            f"{path} is damaged: restore it from a backup, or start anew after 'rm -r {root}' (this deletes the lake)"
        ) from None
    if version != FORMAT_VERSION:
        raise LakeError(
            f"{root} has lake format {version!r}, this WikiStream reads format {FORMAT_VERSION}: run the WikiStream that wrote "
            "it ('git pull && make clean' gets the newest), or set WIKISTREAM_HOME to a new folder"
        )
    return True


def _refuse_foreign_folder(root: Path) -> None:
    if not root.exists():
        return
    ours = {*FOLDERS, "secrets", "lake.json"}  # another process may have completed the home a moment ago
    foreign = sorted(entry.name for entry in root.iterdir() if entry.name not in ours and not _is_own_file(entry))
    if foreign:
        raise LakeError(
            f"{root} is not a WikiStream home (it holds {foreign[0]}): set WIKISTREAM_HOME to a new or empty folder"
        )


def _is_own_file(entry: Path) -> bool:
    return entry.name.startswith((".new-", "catalog.db"))


def _create_once(path: Path, text: str) -> None:
    """Write a file whole, mode 0600, or leave the one that is there (another process may be opening the home too)."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".new-", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(file.name, path)
