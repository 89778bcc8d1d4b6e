"""A copy of the lake that can be restored elsewhere: catalog, reachable files, format, key, and which source it reads.

The catalog is copied by SQLite's own backup call: one instant of all tables. Everything else follows from it: each table's
metadata, its snapshots' manifest lists, their manifests, and the data files these name. Such files are never changed once they
are written, so one that is in the backup already is not copied again, and the pipeline may write on meanwhile; only maintenance,
which deletes files, is kept out. ``backup.json`` is written last: it is what makes a folder a backup. It says which lake it is
of, by path and key, and no other is ever copied over it: another one's files would take the place of all that is there.

Iceberg's metadata holds absolute paths. Restored to another place they are rewritten (``relocation``).
"""

import filecmp
import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from pyiceberg.io import FileIO
from pyiceberg.serializers import FromInputFile
from pyiceberg.table.metadata import TableMetadata

from producer.paths import absolute
from wikistream_assets.embedded.home import BACKUP_MARK, FOLDERS, open_home, settle, user_key
from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.embedded.leases import LocalLeases
from wikistream_assets.embedded.source import SOURCE_FILE
from wikistream_assets.exceptions import LakeError
from wikistream_assets.lake.local_files import LocalFileIO, local_path, location_of
from wikistream_assets.lake.state import summary_properties
from wikistream_assets.machine.files import replace_whole
from wikistream_assets.settings import CRITERIA_FILE, Settings, load_settings
from wikistream_assets.streams.declaration import RAW_LAYER
from wikistream_assets.streams.registry import STREAMS
from wikistream_assets.tables.dq_audit import AUDIT_TRAIL
from wikistream_assets.upkeep.relocation import metadata_locations, rewrite_paths

MARK: Final = BACKUP_MARK

_CATALOG: Final = "catalog.db"
_USER_KEY: Final = "secrets/user_key"
_CHOICES: Final = (SOURCE_FILE, CRITERIA_FILE)
_ATTEMPTS: Final = 5
_PRIVATE: Final = 0o700

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all."""


@dataclass(frozen=True)
class BackupReport:
    """What a backup or a restore did.

    Attributes:
        files / bytes: of the lake.
        copied: files that were not there yet.
    """

    files: int
    bytes: int
    copied: int


def back_up(
    settings: Settings, folder: Path, *, dagster: bool = False, progress: Progress = lambda *_: None
) -> BackupReport:
    """Copy the lake of ``settings`` to ``folder``, or bring an earlier backup there up to date.

    Args:
        dagster: also copy Dagster's databases: runs, events, schedules.

    Raises:
        LakeError: the folder holds something else or the backup of another lake, or cannot be written.
        WriterBusyError: maintenance is at work.
    """
    root, folder = open_home(settings), absolute(folder)
    lake = _Identity(root, _fingerprint(user_key(settings)))
    _check_folder(lake, folder)
    folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
    with ExitStack() as held:
        for name in _held_for_upkeep():
            held.enter_context(LocalLeases(settings).only_maintenance(name))
        catalog, files = _freeze(root, folder)
        files |= _reachable(root, folder, files)
        report = _copy(root, folder, files, progress)
    for name in ("lake.json", _USER_KEY):
        _replace(root / name, folder / name)
    for name in _CHOICES:
        if (root / name).exists():
            _replace(root / name, folder / name)
        else:
            (folder / name).unlink(missing_ok=True)
    if dagster:
        for path in (*settings.dagster_home.rglob("*.db"), *settings.dagster_home.glob("dagster.yaml")):
            _replace(path, folder / "dagster" / path.relative_to(settings.dagster_home))
    catalog.replace(folder / _CATALOG)
    created_at = datetime.now(UTC).isoformat(timespec="seconds")
    made = {"origin": str(root), "lake": lake.fingerprint, "created_at": created_at, "files": len(files)}
    replace_whole(folder / MARK, json.dumps(made).encode())
    _prune(folder, files)
    return report


def restore(
    folder: Path, home: Path, *, kafka_lost: bool = False, progress: Progress = lambda *_: None
) -> BackupReport:
    """Make ``home`` from the backup in ``folder``.

    Args:
        home: where the lake is to be; must not hold one.
        kafka_lost: Kafka's topics are new too: Bronze reads them from their beginning.

    Raises:
        LakeError: the folder is no backup, or there is a lake in ``home`` already.
        ConfigurationError: ``home`` is a path that no lake can have.
    """
    folder, home = absolute(folder), load_settings(home=home).root
    origin = Path(_read_mark(folder)["origin"])
    if (home / "lake.json").exists() or (home / _CATALOG).exists():
        raise LakeError(f"there is a lake in {home} already: restore to a new folder, or move that one away")
    files = {path.relative_to(folder).as_posix() for path in (folder / "warehouse").rglob("*") if path.is_file()}
    for name in (*FOLDERS, "secrets"):
        (home / name).mkdir(mode=_PRIVATE if name == "secrets" else 0o777, parents=True, exist_ok=True)
    report = _copy(folder, home, files, progress)
    _replace(folder / _USER_KEY, home / _USER_KEY)
    for name in _CHOICES:
        if (folder / name).exists():
            _replace(folder / name, home / name)
    for path in (folder / "dagster").rglob("*"):
        if path.is_file():
            _replace(path, home / path.relative_to(folder))
    _copy_database(folder / _CATALOG, home / _CATALOG)
    if origin != home:
        rewrite_paths(Settings(home=home))
    # Last: a folder without it is no lake yet, and a restore that was cut short is done again in a new one.
    _replace(folder / "lake.json", home / "lake.json")
    settle(home, new_identity=origin != home)  # the original may still be there
    if kafka_lost:
        _forget_kafka(home)
    return report


# ---- what belongs to the lake -----------------------------------------------------------------------------------------


def _freeze(root: Path, folder: Path) -> tuple[Path, set[str]]:
    """One instant of the catalog, and the metadata files it names, copied before later commits delete them."""
    catalog = folder / f"{_CATALOG}.new"
    for _ in range(_ATTEMPTS):
        catalog.unlink(missing_ok=True)
        _copy_database(root / _CATALOG, catalog)
        named = {Path(local_path(location)).relative_to(root).as_posix() for location in metadata_locations(catalog)}
        try:
            for name in named:
                _replace(root / name, folder / name)
        except FileNotFoundError:
            continue  # ten commits later the file is deleted; a fresh copy of the catalog names a newer one
        return catalog, named
    raise LakeError(
        "the lake changes faster than its catalog can be copied: stop the stream for a moment and try again"
    )


def _reachable(root: Path, folder: Path, metadata_files: Iterable[str]) -> set[str]:
    """What the metadata files name, as they were copied to ``folder``: at the source they may be gone by now."""
    io = LocalFileIO()
    files: set[str] = set()
    for name in metadata_files:
        manifests: dict[str, Any] = {}
        for snapshot in _metadata(io, folder / name).snapshots:
            files.add(_relative(root, snapshot.manifest_list))
            manifests |= {manifest.manifest_path: manifest for manifest in snapshot.manifests(io)}
        for path, manifest in manifests.items():
            files.add(_relative(root, path))
            files |= {_relative(root, entry.data_file.file_path) for entry in manifest.fetch_manifest_entry(io)}
    return files


def _relative(root: Path, location: str) -> str:
    return Path(local_path(location)).relative_to(root).as_posix()


def _metadata(io: FileIO, path: Path) -> TableMetadata:
    return FromInputFile.table_metadata(io.new_input(location_of(path)))


# ---- whose backup it is -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Identity:
    """What tells lakes apart: a restored copy has the same key at another path, a lake made anew another key at the same."""

    origin: Path
    fingerprint: str

    def __str__(self) -> str:
        return f"{self.origin} (key {self.fingerprint})"


def _fingerprint(key: bytes) -> str:
    """Names the key of a home without giving it away."""
    return hashlib.sha256(b"wikistream backup" + key).hexdigest()[:16]


def _check_folder(lake: _Identity, folder: Path) -> None:
    if folder == lake.origin or lake.origin in folder.parents:
        raise LakeError(f"{folder} is inside the lake's own folder: a backup belongs elsewhere")
    if (folder / MARK).exists():
        known = _identity(folder)
        if known != lake:
            raise LakeError(
                f"{folder} is the backup of another lake, {known}; this one is {lake}: name a new or empty folder, nothing "
                "was changed"
            )
    elif folder.exists() and not (folder / f"{_CATALOG}.new").exists() and any(folder.iterdir()):
        raise LakeError(f"{folder} is not empty and holds no backup: name a new or empty folder")


def _identity(folder: Path) -> _Identity:
    """Which lake the backup is of. The mark of an earlier version does not name the key, but the key is there."""
    mark = _read_mark(folder)
    return _Identity(Path(mark["origin"]), mark.get("lake") or _fingerprint_of_copy(folder / _USER_KEY))


def _fingerprint_of_copy(path: Path) -> str:
    try:
        return _fingerprint(bytes.fromhex(path.read_text(encoding="ascii")))
    except (OSError, ValueError):
        return "unknown"  # no lake's; the folder is left as it is


def _read_mark(folder: Path) -> dict[str, Any]:
    """The mark, which names the origin at least."""
    try:
        mark: dict[str, Any] = json.loads((folder / MARK).read_text(encoding="utf-8"))
        Path(mark["origin"])
    except (OSError, ValueError, KeyError, TypeError):
        raise LakeError(
            f"{folder} is no complete backup ({MARK} is missing or damaged); make one in a new folder with: wikistream backup"
        ) from None
    return mark


# ---- copying ----------------------------------------------------------------------------------------------------------


def _copy(source: Path, target: Path, files: set[str], progress: Progress) -> BackupReport:
    """Copy what is not there already."""
    sizes = {name: _size(source / name, target / name) for name in files}
    total, done, copied = sum(sizes.values()), 0, 0
    for name, size in sorted(sizes.items()):
        if not _same(source / name, target / name, size):
            _replace(source / name, target / name)
            copied += 1
        done += size
        progress(done, total)
    return BackupReport(len(sizes), total, copied)


def _size(source: Path, target: Path) -> int:
    # A metadata file that has been copied may be gone at its source by now: Iceberg keeps the newest ones only.
    for path in (source, target):
        with suppress(FileNotFoundError):
            return path.stat().st_size
    raise LakeError(f"{source} is missing: the lake, or the backup, is damaged")


def _same(source: Path, target: Path, size: int) -> bool:
    """Whether ``target`` is the file of ``size`` bytes already."""
    if not target.exists() or target.stat().st_size != size:
        return False
    # A restore writes manifests anew under their old names, maybe in the same size. Data files are never written twice,
    # and the tables' metadata files have been copied just before, together with the catalog that names them.
    return source.suffix != ".avro" or filecmp.cmp(source, target, shallow=False)


def _replace(source: Path, target: Path) -> None:
    """Copy one file whole or not at all; its rights go along. A database is copied by SQLite's own call."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    if source.suffix == ".db":
        part.unlink(missing_ok=True)
        _copy_database(source, part)
    else:
        shutil.copy(source, part)
    part.replace(target)


def _copy_database(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)


def _held_for_upkeep() -> list[str]:
    """The names under which maintenance holds the layers of all streams."""
    return [stream.lease(layer) for stream in STREAMS.values() for layer in stream.layers] + [AUDIT_TRAIL]


def _prune(folder: Path, files: set[str]) -> None:
    for path in (folder / "warehouse").rglob("*"):
        if path.is_file() and path.relative_to(folder).as_posix() not in files:
            path.unlink()


def _forget_kafka(home: Path) -> None:
    """Give Bronze a position before everything: totals go on, and events it has already are found to be duplicates."""
    lake = local_lake(Settings(home=home))
    for stream in STREAMS.values():
        lake.add_kafka_loss(stream.ingest.dead_letters, datetime.now(UTC))
    for spec in (spec for stream in STREAMS.values() for spec in stream.layers[RAW_LAYER]):
        newest = lake.state(spec).newest_position()
        if newest is not None and newest.counts is not None:
            total = newest.counts["total"]
            counts = {"batch": dict.fromkeys(total, 0), "total": total, "milliseconds": 0}
            lake.append(spec, properties=summary_properties({}, counts))
