"""WIKISTREAM_HOME: its layout, its format version, its place, its secret, and its locks.

Iceberg's metadata holds absolute paths, so a home works only where it was made: a copy would write to the original's files and
delete them. ``lake.json`` records that place and an identity; a home that is elsewhere is refused until it is relocated.

Belongs here: what is true of the folder as a whole. Does not belong here: what the catalog, the broker or Dagster write into
their parts of it.
"""

import errno
import fcntl
import json
import os
import re
import secrets
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import Any, Final, TextIO

from wikistream_assets.exceptions import LakeError, WriterBusyError
from wikistream_assets.machine.causes import with_advice
from wikistream_assets.machine.files import replace_whole
from wikistream_assets.machine.locks import exclusive
from wikistream_assets.settings import CRITERIA_FILE, Settings

FORMAT_VERSION: Final = 1
"""What this version of WikiStream reads and writes; ``lake.json`` says what a home holds."""

BACKUP_MARK: Final = "backup.json"
"""A folder that holds it is a backup: something to restore from, not a home."""

FOLDERS: Final = ("warehouse", "kafka", "checkpoints", "dagster", "logs", "run")

_LAKE: Final = "lake.json"
_USER_KEY: Final = "secrets/user_key"
_PRIVATE: Final = 0o700
_PROBE_ATTEMPTS: Final = 50
_PROBE_PAUSE_SECONDS: Final = 0.01


def open_home(settings: Settings) -> Path:
    """Return the home's absolute path, after creating what is missing of its layout; opening twice changes nothing.

    ``lake.json`` is written last: a home without it is one whose creation was cut short, and is completed here.

    Raises:
        LakeError: the folder is of a format this version does not read, is not a WikiStream home, is not where it was made, or
            cannot be written.
    """
    root = settings.root
    try:
        known = check_home(root)
        for folder in FOLDERS:
            (root / folder).mkdir(parents=True, exist_ok=True)
        _secret_folder(root).mkdir(mode=_PRIVATE, exist_ok=True)
        if not known:
            _create_once(root / _USER_KEY, secrets.token_hex(32))
            _create_once(root / _LAKE, json.dumps(_description(root)))
        elif "path" not in _read_description(root):  # of an earlier version; check_home has seen where it was made
            with exclusive(root / "run" / "home.lock"):
                settle(root)
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
    try:
        known = check_home(root)
    except OSError as error:
        raise unusable(root, error) from None
    return f"{root}, lake format {FORMAT_VERSION}" if known else f"{root}, not created yet"


def check_home(root: Path) -> bool:
    """Return whether ``root`` is a complete home of this format in its own place; False if it is new or was cut short.

    Raises:
        LakeError: as ``open_home``; nothing was written.
    """
    known = check_format(root)
    former = former_place(root)
    if former is None:
        return known
    if is_copy(root, former):
        raise LakeError(
            f"the lake in {root} is a copy of the one in {former}, whose files it would change: set WIKISTREAM_HOME to the "
            "original, or make the copy a separate lake with 'wikistream relocate'; nothing was changed"
        )
    raise LakeError(
        f"the lake in {root} was moved there from {former}: run 'wikistream relocate' to make it work in its new place, or move "
        "it back; nothing was changed"
    )


def former_place(root: Path) -> Path | None:
    """Return where the home was made or last relocated to; None if that is ``root``, or if nothing was made yet.

    A home of an earlier version does not record its place, but its catalog names its tables' files.

    Raises:
        LakeError: ``lake.json`` or the catalog cannot be read, or the folder is a backup.
    """
    recorded = _read_description(root).get("path")
    place = Path(recorded) if isinstance(recorded, str) else _place_in_catalog(root)
    if place is None or place == root:
        return None
    if (root / BACKUP_MARK).exists():
        raise LakeError(
            f"{root} is a backup of {place}: make a home of it with 'wikistream restore {quote(str(root))} --home NEW'"
        )
    return place


def is_copy(root: Path, former: Path) -> bool:
    """Tell whether the home that ``root`` was made from is still in its former place."""
    try:
        if root.samefile(former):
            return False
        mine, other = _read_description(root), _read_description(former)
        if not other and not (former / "catalog.db").exists():
            return False
        if "id" in mine and "id" in other:
            return bool(mine["id"] == other["id"])
        return (root / _USER_KEY).read_bytes() == (former / _USER_KEY).read_bytes()
    except (OSError, LakeError):
        return False  # nothing there, or nothing that is a home


def settle(root: Path, *, new_identity: bool = False) -> None:
    """Record in ``lake.json`` that the home is at ``root``. It keeps its identity unless it gets a new one."""
    known = _read_description(root)
    kept = known if not new_identity else {name: value for name, value in known.items() if name != "id"}
    replace_whole(root / _LAKE, json.dumps(_description(root) | kept | {"path": str(root)}).encode())


def unusable(path: Path, error: OSError) -> LakeError:
    """Return the one-line error for a home that the operating system does not let us write."""
    advice = with_advice("set WIKISTREAM_HOME to another folder", error)
    return LakeError(f"{path} cannot be written ({error.strerror}): {advice}")


def user_key(settings: Settings) -> bytes:
    """Return this home's key for hashing the addresses of IP users: 32 bytes, never leaving the home.

    Raises:
        LakeError: the key is gone. A new one would give every known address a second name, so none is made up.
    """
    path = open_home(settings) / _USER_KEY
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # of a text that is not ASCII, or not hexadecimal
        key = b""
    if len(key) != 32:
        raise LakeError(
            f"{path} is missing or damaged: restore it from a backup, or write a new one with "
            f"'openssl rand -hex 32 > {quote(str(path))}' (IP users then get new hashes)"
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


def check_format(root: Path) -> bool:
    """Return whether ``root`` is a complete home of this format, False if it is new or was cut short.

    Raises:
        LakeError: it is of another format, or no home.
    """
    if not (root / _LAKE).exists():
        _refuse_foreign_folder(root)
        return False
    version = _read_description(root)["format_version"]
    if version != FORMAT_VERSION:
        raise LakeError(
            f"{root} has lake format {version!r}, this WikiStream reads format {FORMAT_VERSION}: run the WikiStream that wrote "
            "it ('git pull && make clean' gets the newest), or set WIKISTREAM_HOME to a new folder"
        )
    return True


def _read_description(root: Path) -> dict[str, Any]:
    """What ``lake.json`` says; empty if there is none.

    Raises:
        LakeError: it is damaged.
    """
    path = root / _LAKE
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        known["format_version"]
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError):
        raise LakeError(
            f"{path} is damaged: restore it from a backup, or start over after 'rm -r {quote(str(root))}' (this deletes the lake)"
        ) from None
    return dict(known)


def _description(root: Path) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "path": str(root),
        "id": str(uuid.uuid4()),
    }


def _place_in_catalog(root: Path) -> Path | None:
    """The home that the catalog's tables lie in, one elsewhere before ``root`` itself; None if there are no tables."""
    catalog = root / "catalog.db"
    if not catalog.exists():
        return None
    try:
        with closing(sqlite3.connect(f"{catalog.as_uri()}?mode=ro", uri=True)) as connection:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'iceberg_tables'").fetchone():
                return None
            rows = connection.execute("SELECT metadata_location FROM iceberg_tables").fetchall()
    except sqlite3.Error as error:
        raise LakeError(
            f"{catalog} cannot be read ({error}): restore a backup with 'wikistream restore', or start a new home "
            "(WIKISTREAM_HOME)"
        ) from None
    places = {_home_of(location) for (location,) in rows if location}
    return next((place for place in sorted(places) if place != root), root) if places else None


def _home_of(location: str) -> Path:
    """The home of a location as earlier versions wrote them: ``file://HOME/warehouse/NAMESPACE/TABLE/metadata/FILE``."""
    return Path(re.sub(r"^file:(//)?(?=/)", "", location).rpartition("/warehouse/")[0])


def _refuse_foreign_folder(root: Path) -> None:
    if not root.exists():
        return
    if not root.is_dir():
        raise LakeError(f"{root} is not a folder: set WIKISTREAM_HOME to a new or empty one")
    ours = {*FOLDERS, "secrets", _LAKE, CRITERIA_FILE}  # another process may have completed the home a moment ago
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
