"""The embedded lake: Iceberg's SQL catalog on SQLite, and files, both under ``WIKISTREAM_HOME``."""

import sqlite3
from contextlib import closing

from wikistream_assets.embedded.home import check_home
from wikistream_assets.exceptions import LakeError
from wikistream_assets.lake.lakehouse import CATALOG_NAME, REMEDY, Lakehouse, LocalCatalog
from wikistream_assets.lake.local_files import IO_PROPERTY, location_of
from wikistream_assets.settings import Settings
from wikistream_assets.streams.registry import ALL_TABLES


def local_lake(settings: Settings) -> Lakehouse:
    """The lake of a home, with its missing tables made.

    Raises:
        LakeError: the home is not where it was made, the catalog cannot be opened, or a table's metadata cannot be read.
    """
    try:
        check_home(settings.root)
        settings.warehouse.mkdir(parents=True, exist_ok=True)
        if not settings.catalog_db.exists() and any(settings.warehouse.iterdir()):
            raise LakeError(
                f"{settings.catalog_db} is missing, which names the tables in {settings.warehouse}: {REMEDY}"
            )
        # Spark's JDBC catalog and PyIceberg share the file; without write-ahead logging they lock each other out.
        with closing(sqlite3.connect(settings.catalog_db)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
    except (OSError, sqlite3.Error) as error:
        raise LakeError(
            f"cannot open the catalog {settings.catalog_db}: {error}; check that the folder is writable and has space"
        ) from error
    lake = _lake(settings)
    lake.ensure_tables()
    return lake


def inspect_lake(settings: Settings) -> int:
    """Read the metadata of every table of an embedded lake that is there; how many there are. Changes nothing.

    Raises:
        LakeError: as ``local_lake``.
    """
    check_home(settings.root)
    lake = _lake(settings)
    known = {name for namespace in lake.catalog.list_namespaces() for name in lake.catalog.list_tables(namespace)}
    return len([lake.table(spec) for spec in ALL_TABLES if (spec.namespace, spec.name) in known])


def _lake(settings: Settings) -> Lakehouse:
    return Lakehouse(
        LocalCatalog(
            CATALOG_NAME,
            uri=f"sqlite:///{settings.catalog_db.as_uri()}?uri=true",  # as a URI: a '?' may stand in a path
            warehouse=location_of(settings.warehouse),
            **IO_PROPERTY,
        )
    )
