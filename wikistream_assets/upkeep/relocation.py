"""A lake in another place than the one its metadata names: every path in the catalog and in Iceberg's files is rewritten.

Iceberg's metadata holds absolute paths. They are rewritten file by file: Iceberg's own procedure for that
(``rewrite_table_path``) reads the table at its old place, which is gone, or is another lake's. Where a file lies below
``warehouse`` tells where it belongs, whatever stands before, so a rewriting that was killed is simply done again, even after
another move. Each file is replaced whole; the catalog comes after all files, and ``lake.json`` last: until then the home is
refused.
"""

import fcntl
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from pyiceberg.avro.file import AvroFile, AvroOutputFile
from pyiceberg.manifest import ManifestEntryStatus
from pyiceberg.schema import Schema
from pyiceberg.types import IcebergType, StructType

from wikistream_assets.embedded import supervisor
from wikistream_assets.embedded.home import check_format, former_place, is_copy, settle, unusable
from wikistream_assets.engine.failpoints import RELOCATE_AFTER_CATALOG, RELOCATE_AFTER_TABLE, failpoint
from wikistream_assets.exceptions import LakeError
from wikistream_assets.lake.lakehouse import REMEDY, named_file
from wikistream_assets.lake.local_files import LocalFileIO, local_path, location_of
from wikistream_assets.machine.locks import exclusive
from wikistream_assets.settings import Settings

_AVRO_KEYS: Final = ("avro.schema", "avro.codec")


@dataclass(frozen=True)
class Relocation:
    """What a relocation did.

    Attributes:
        former: where the home was.
        copied: the original is still there, so this one got a new identity.
        tables: tables whose paths were rewritten.
    """

    former: Path
    copied: bool
    tables: int


def relocate(settings: Settings) -> Relocation | None:
    """Make a home that was moved or copied work where it is; None if it is in its place already.

    The files at its former place are not touched.

    Raises:
        LakeError: there is no lake, it is in use, or it is not whole; nothing was changed then.
    """
    root = settings.root
    if not check_format(root) and not settings.catalog_db.exists():
        raise LakeError(f"there is no lake in {root}: set WIKISTREAM_HOME to the folder that was moved or copied")
    try:
        with exclusive(root / "run" / "services.lock"):
            former = former_place(root)
            if former is None:
                return None
            _refuse_in_use(settings)
            copied = is_copy(root, former)
            tables = rewrite_paths(settings)
            failpoint(settings, RELOCATE_AFTER_CATALOG)
            settle(root, new_identity=copied)
    except OSError as error:
        raise unusable(root, error) from None
    return Relocation(former, copied, tables)


def rewrite_paths(settings: Settings) -> int:
    """Rewrite all paths of the lake, whose files and catalog are in the home of ``settings``; the number of its tables.

    Raises:
        LakeError: a file of the lake is missing or damaged; nothing was changed then.
    """
    home, catalog = settings.root, settings.catalog_db
    if not catalog.exists():
        return 0
    tables = [_Table(home, location) for location in metadata_locations(catalog)]
    for table in tables:
        table.refuse_unless_whole()
    for table in tables:
        table.rewrite()
        failpoint(settings, RELOCATE_AFTER_TABLE)
    with closing(sqlite3.connect(catalog)) as connection, connection:
        rows = connection.execute("SELECT rowid, metadata_location FROM iceberg_tables").fetchall()
        connection.executemany(
            "UPDATE iceberg_tables SET metadata_location = ?, previous_metadata_location = NULL WHERE rowid = ?",
            [(_placed(home, location), rowid) for rowid, location in rows],
        )
    return len(tables)


def metadata_locations(catalog: Path) -> list[str]:
    """The newest metadata file of each table of a catalog."""
    try:
        with closing(sqlite3.connect(catalog)) as connection:
            return [row[0] for row in connection.execute("SELECT metadata_location FROM iceberg_tables")]
    except sqlite3.DatabaseError as error:
        raise LakeError(f"{catalog} is damaged ({error}): {REMEDY}") from None


class _Table:
    """One table's metadata: its newest metadata file, the manifest lists it names, the manifests these name."""

    def __init__(self, home: Path, metadata_location: str) -> None:
        self._home, self._io = home, LocalFileIO()
        self._metadata = self._path(metadata_location)

    @cached_property
    def _content(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self._metadata.read_bytes())
        return content

    def refuse_unless_whole(self) -> None:
        """Look at every file before the first is written: the copy of a home that was in use lacks some."""
        file = self._metadata
        manifests: set[str] = set()
        try:
            for snapshot in self._content["snapshots"]:
                file = self._path(snapshot["manifest-list"])
                manifests |= set(self._values(file, "manifest_path"))
            for manifest in manifests:
                file = self._path(manifest)
                for location in self._data_files(file):
                    self._path(location).stat()
        except FileNotFoundError as error:
            raise LakeError(
                f"{error.filename or file} is missing, so the lake is not whole: copy the home again while nothing runs in it "
                f"('wikistream down'), or {REMEDY}; nothing was changed"
            ) from None
        except (ValueError, LookupError, TypeError, EOFError) as error:
            raise LakeError(f"{file} is damaged ({named_file(error)}): {REMEDY}; nothing was changed") from None

    def rewrite(self) -> None:
        """Replace each file that holds paths; a second time changes nothing more."""
        lengths: dict[str, int] = {}
        for snapshot in self._content["snapshots"]:
            manifest_list = self._path(snapshot["manifest-list"])
            for manifest in self._values(manifest_list, "manifest_path"):
                if manifest not in lengths:
                    lengths[manifest] = self._rewrite(self._path(manifest), "manifest_entry", self._entry)
            self._rewrite(manifest_list, "manifest_file", lambda schema, record: self._listed(schema, record, lengths))
        content = self._all_placed(self._content)
        # After a restore there are none. After a move they are here, and later commits delete them one by one.
        content["metadata-log"] = [
            entry for entry in content.get("metadata-log", ()) if self._path(entry["metadata-file"]).exists()
        ]
        part = _part(self._metadata)
        part.write_text(json.dumps(content), encoding="utf-8")
        _put(part, self._metadata)

    def _path(self, location: str) -> Path:
        return Path(local_path(_placed(self._home, location)))

    def _values(self, path: Path, field: str) -> list[str]:
        with AvroFile[Any](self._io.new_input(location_of(path))) as file:
            place = _index(file.schema, field)
            return [record[place] for record in file]

    def _data_files(self, path: Path) -> Iterator[str]:
        """The data files that a manifest adds or keeps; those that it only says to be deleted may be gone."""
        with AvroFile[Any](self._io.new_input(location_of(path))) as file:
            status, data_file = _index(file.schema, "status"), _index(file.schema, "data_file")
            place = _index(file.schema.find_type("data_file"), "file_path")
            for record in file:
                if record[status] != ManifestEntryStatus.DELETED:
                    yield record[data_file][place]

    def _rewrite(self, path: Path, name: str, change: Callable[[Schema, Any], None]) -> int:
        """Rewrite one Avro file in its own schema, with its own header; returns its new length in bytes."""
        with AvroFile[Any](self._io.new_input(location_of(path))) as file:
            records, schema = list(file), file.schema
            header = {key: value for key, value in file.header.meta.items() if key not in _AVRO_KEYS}
        for record in records:
            change(schema, record)
        part = _part(path)
        with AvroOutputFile[Any](self._io.new_output(location_of(part)), schema, name, metadata=header) as output:
            output.write_block(records)
        _put(part, path)
        return path.stat().st_size

    def _entry(self, schema: Schema, record: Any) -> None:
        data_file = record[_index(schema, "data_file")]
        path = _index(schema.find_type("data_file"), "file_path")
        data_file[path] = _placed(self._home, data_file[path])

    def _listed(self, schema: Schema, record: Any, lengths: dict[str, int]) -> None:
        path = _index(schema, "manifest_path")
        record[_index(schema, "manifest_length")] = lengths[record[path]]
        record[path] = _placed(self._home, record[path])

    def _all_placed(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._all_placed(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._all_placed(item) for item in value]
        return _placed(self._home, value) if isinstance(value, str) else value


def _placed(home: Path, location: str) -> str:
    """The location in ``home`` of a file that was below the warehouse of this home or of another; other text stays as it is."""
    if not location.startswith("file:/"):
        return location
    _, below, rest = location.rpartition("/warehouse/")
    return location_of(home / "warehouse" / rest) if below else location


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _put(part: Path, path: Path) -> None:
    """Let ``part`` take the place of ``path``, with its rights: a reader, and a crash, finds the old file or the new."""
    shutil.copymode(path, part)
    with part.open("rb") as file:
        os.fsync(file.fileno())
    # Hadoop's checksum of the old content, beside each file that Spark wrote: it would refuse the new one.
    path.with_name(f".{path.name}.crc").unlink(missing_ok=True)
    part.replace(path)


def _index(struct: Schema | IcebergType, name: str) -> int:
    fields = struct.fields if isinstance(struct, (Schema, StructType)) else ()
    return [field.name for field in fields].index(name)


def _refuse_in_use(settings: Settings) -> None:
    """Refuse a home in which something runs: what has its files open goes on with the paths it knows."""
    root = settings.root
    running = supervisor.process_infos(settings) is not None or bool(supervisor.marked_processes(root))
    if running or any(_is_held(path) for path in (root / "run").glob("*.lock") if path.name != "services.lock"):
        raise LakeError(f"the lake in {root} is in use: stop what runs there with 'wikistream down', then relocate it")


def _is_held(path: Path) -> bool:
    """Tell whether a process holds the lock, Python's kind or Java's."""
    with path.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
