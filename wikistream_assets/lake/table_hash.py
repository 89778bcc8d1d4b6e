"""Proving that two lakes hold the same rows: one order-free hash per table.

The hash of a table is the sum, modulo 2**64 each, of the two halves of MD5 over every row. Rows may lie in any order and in
any files; a row more, less, changed or doubled changes the sum. A row's text holds its values in the order of the columns'
names, each ``n`` for NULL or ``v<bytes>:<text>``, so that neither a column order nor a value's own content can blur it.
MD5 detects differences here, it does not protect against a forger.

Left out is what differs between two runs over the same events: the columns whose role is ``incidental`` (when a row was processed
or ingested, where Kafka put its record), and the audit trail. Where pseudonyms of addresses stand, ``ip-<16 digits>`` under a key
that each home makes for itself, every one counts as ``ip-*``.
"""

from typing import Final

from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.query import open_views
from wikistream_assets.streams.registry import ALL_TABLES, TABLE_BY_IDENTIFIER
from wikistream_assets.tables.spec import Column, TableSpec

HASHED_TABLES: Final = tuple(spec for spec in ALL_TABLES if spec.namespace != "dq_audit")

_HALF: Final = 2**64


def table_hashes(lake: Lakehouse) -> dict[str, str]:
    """The hash of every table but the audit trail's, at the version a reader sees: identifier -> 32 hexadecimal digits.

    Raises:
        LakeError: the four Gold tables have no version in common.
    """
    with open_views(lake, HASHED_TABLES) as connection:
        hashes = {}
        for spec in HASHED_TABLES:
            [(low, high)] = connection.execute(_hash_sql(spec)).fetchall()
            hashes[spec.identifier] = f"{low % _HALF:016x}{high % _HALF:016x}"
        return hashes


def hashed_columns(identifier: str) -> tuple[str, ...]:
    """The columns of ``namespace.name`` that its hash covers, in the order in which they are hashed."""
    return tuple(column.name for column in _hashed(TABLE_BY_IDENTIFIER[identifier]))


def _hashed(spec: TableSpec) -> list[Column]:
    kept = (column for column in spec.columns if "incidental" not in column.roles)
    return sorted(kept, key=lambda column: column.name)


def _hash_sql(spec: TableSpec) -> str:
    values = ", ".join(f"coalesce('v' || strlen({text}) || ':' || {text}, 'n')" for text in map(_text, _hashed(spec)))
    return (  # names of the contract only
        "SELECT coalesce(sum(md5_number_lower(line)), 0), coalesce(sum(md5_number_upper(line)), 0) "  # noqa: S608
        f"FROM (SELECT concat({values}) AS line FROM {spec.identifier})"
    )


def _text(column: Column) -> str:
    """SQL of the value as text, NULL for NULL: instants as microseconds since the epoch, numbers in shortest form."""
    name = f'"{column.name}"'
    if column.type == "timestamp":
        return f"epoch_us({name})::VARCHAR"
    if "pseudonym" in column.roles:
        return f"regexp_replace({name}, 'ip-[0-9a-f]{{16}}', 'ip-*', 'g')"
    return f"{name}::VARCHAR"
