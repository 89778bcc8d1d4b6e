"""One edit through every layer: where it came from, which gates judged it, which rows hold it and count it.

Which snapshot added a row is read from the manifests, not guessed from times: each data file's entry names the snapshot that
added the file. Where that was a compaction, which only rewrites, the search goes on in the version before it.
"""

import base64
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import duckdb
from pyiceberg.expressions import AlwaysTrue, And, BooleanExpression, EqualTo, GreaterThanOrEqual
from pyiceberg.manifest import ManifestContent
from pyiceberg.table import Table

from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.local_files import local_path
from wikistream_assets.lake.query import common_versions, connect, relation
from wikistream_assets.lake.state import Version
from wikistream_assets.streams.edits.tables import (
    CLEANED_EVENTS,
    DAILY_ANALYTICS_SUMMARY,
    DEAD_LETTER,
    ENTITY_TRENDS,
    GOLD_TABLES,
    HOURLY_STATS,
    QUARANTINE,
    RAW_EVENTS,
    RISK_SCORES,
)
from wikistream_assets.tables.dq_audit import QUALITY_RESULTS
from wikistream_assets.tables.spec import TableSpec
from wikistream_assets.text.pseudonyms import address_pseudonym

MAX_DEAD_LETTERS: Final = 20
"""Dead letters reported for one id."""

_REWRITES: Final = "replace"
_SILVER: Final = CLEANED_EVENTS.identifier
_PSEUDONYM: Final = re.compile("ip-[0-9a-f]{16}")


@dataclass(frozen=True)
class Found:
    """A row and where it is kept.

    Attributes:
        table: ``namespace.name``.
        row: its values by column.
        snapshot_id: the snapshot that added the row; None where that is no longer in the table's history.
        version: that snapshot; None if it has expired.
    """

    table: str
    row: Mapping[str, Any]
    snapshot_id: int | None
    version: Version | None


@dataclass(frozen=True)
class Trace:
    """What the lake knows of one event.

    Attributes:
        event_id: ``meta.id``.
        bronze / silver / quarantine: its row in each, or None.
        gold: the rows it counts in; empty while Gold was not yet made from its Silver snapshot.
        verdicts: rows of ``dq_audit.quality_results`` whose audited range holds its Bronze (for Gold: Silver) snapshot.
        dead_letters: up to ``MAX_DEAD_LETTERS`` dead letters whose original bytes hold the id.
    """

    event_id: str
    bronze: Found | None
    silver: Found | None
    quarantine: Found | None
    gold: tuple[Found, ...]
    verdicts: tuple[Mapping[str, Any], ...]
    dead_letters: tuple[Found, ...]

    @property
    def known(self) -> bool:
        """Whether any table holds the event."""
        return any((self.bronze, self.silver, self.quarantine, self.dead_letters))


def trace(lake: Lakehouse, event_id: str, user_key: bytes) -> Trace:
    """Follow one event; Bronze is searched whole, every later table only in the event's own partitions.

    Args:
        lake: the lake to read.
        event_id: ``meta.id``.
        user_key: the home's secret for the pseudonyms of IP users, to find their rows in Gold.

    Raises:
        LakeError: the four Gold tables have no version in common.
    """
    with connect(lake) as connection:
        finder = _Finder(lake, connection)
        bronze = finder.one(RAW_EVENTS, {"event_id": event_id})
        date = {"event_date": bronze.row["event_date"]} if bronze else {}
        silver = finder.one(CLEANED_EVENTS, {"event_id": event_id, **date})
        quarantine = finder.one(QUARANTINE, {"event_id": event_id, **date})
        return Trace(
            event_id=event_id,
            bronze=bronze,
            silver=silver,
            quarantine=quarantine,
            gold=_gold_rows(finder, silver, user_key) if silver else (),
            verdicts=_verdicts(finder, bronze, silver) if bronze else (),
            dead_letters=_dead_letters(finder, event_id),
        )


class _Finder:
    """Finds rows by their values, and the snapshots that added them."""

    def __init__(self, lake: Lakehouse, connection: duckdb.DuckDBPyConnection) -> None:
        self.lake = lake
        self.connection = connection
        self.gold = common_versions(lake.look(), GOLD_TABLES)
        self._tables: dict[str, Table] = {}

    def table(self, spec: TableSpec) -> Table:
        """The table, loaded once, so that a trace sees one state of it."""
        if spec.identifier not in self._tables:
            self._tables[spec.identifier] = self.lake.table(spec)
        return self._tables[spec.identifier]

    def head(self, spec: TableSpec) -> int | None:
        """Id of the version a reader sees."""
        if spec.identifier in self.gold:
            return self.gold[spec.identifier].snapshot_id
        snapshot = self.table(spec).current_snapshot()
        return snapshot.snapshot_id if snapshot else None

    def one(self, spec: TableSpec, values: Mapping[str, Any]) -> Found | None:
        """The row with these values, if there is one, with the snapshot that added it."""
        rows = self.search(spec, values, self.head(spec))
        return self.located(spec, rows[0], values) if rows else None

    def search(
        self, spec: TableSpec, values: Mapping[str, Any], snapshot_id: int | None, condition: str = "true"
    ) -> list[dict[str, Any]]:
        """Rows with these values that meet the SQL condition, as of a snapshot; ``filename`` says in which file each lies."""
        if snapshot_id is None:
            return []
        rows = relation(
            self.connection, spec, self.table(spec), snapshot_id, row_filter=_all_equal(values), with_file=True
        )
        equal = " AND ".join([f'"{name}" = ?' for name in values] + [condition])
        cursor = self.connection.execute(f"SELECT * FROM ({rows}) WHERE {equal}", list(values.values()))  # noqa: S608
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def located(self, spec: TableSpec, row: dict[str, Any], values: Mapping[str, Any]) -> Found:
        """A row that ``search`` found by ``values``, with the snapshot that added it."""
        row = dict(row)
        key = dict(values) | {name: row[name] for name in (*spec.partition_by, *spec.key)}
        added = self._added_by(spec, self.head(spec), row.pop("filename"), key)
        version = next(self.lake.state(spec).history(added), None) if added is not None else None
        return Found(spec.identifier, row, added, version)

    def _added_by(self, spec: TableSpec, snapshot_id: int | None, file: str, key: Mapping[str, Any]) -> int | None:
        """The snapshot that added the row that lies in ``file`` as of ``snapshot_id``; None if it can no longer be told."""
        table = self.table(spec)
        while snapshot_id is not None:
            added = _snapshot_of_file(table, snapshot_id, file)
            snapshot = table.snapshot_by_id(added) if added is not None else None
            if snapshot is None or snapshot.summary is None or snapshot.summary.operation.value != _REWRITES:
                return added
            snapshot_id = snapshot.parent_snapshot_id
            if snapshot_id is None or table.snapshot_by_id(snapshot_id) is None:
                return None
            earlier = self.search(spec, key, snapshot_id)
            if not earlier:
                return added
            file = earlier[0]["filename"]
        return None

    def ancestry(self, spec: TableSpec) -> dict[int, int]:
        """The snapshots main consists of, as far as they are kept: id -> steps back from the head."""
        table = self.table(spec)
        parents = {snapshot.snapshot_id: snapshot.parent_snapshot_id for snapshot in table.metadata.snapshots}
        steps: dict[int, int] = {}
        head = table.current_snapshot()
        current = head.snapshot_id if head else None
        while current is not None and current in parents:
            steps[current] = len(steps)
            current = parents[current]
        return steps


def _gold_rows(finder: _Finder, silver: Found, user_key: bytes) -> tuple[Found, ...]:
    if not _is_in_gold(finder, silver):
        return ()
    row = silver.row
    at: datetime = row["event_timestamp"].astimezone(UTC)
    date = at.strftime("%Y-%m-%d")
    user = pseudonym(row["user_normalized"], user_key)
    wanted: list[tuple[TableSpec, dict[str, Any]]] = [
        (HOURLY_STATS, {"stat_date": date, "stat_hour": at.hour, "domain": row["domain"]}),
        (RISK_SCORES, {"stat_date": date, "entity_id": user}),
        (ENTITY_TRENDS, {"stat_date": date, "entity_type": "user", "entity_id": user}),
        (ENTITY_TRENDS, {"stat_date": date, "entity_type": "domain", "entity_id": row["domain"]}),
        (DAILY_ANALYTICS_SUMMARY, {"summary_date": date}),
    ]
    name = f"{row['domain']}:{row['title']}"
    pages = finder.search(ENTITY_TRENDS, {"stat_date": date, "entity_type": "page"}, finder.head(ENTITY_TRENDS))
    page = next((page["entity_id"] for page in pages if _names_page(page["entity_id"], name, user_key)), None)
    if page is not None:
        wanted.append((ENTITY_TRENDS, {"stat_date": date, "entity_type": "page", "entity_id": page}))
    return tuple(found for spec, values in wanted if (found := finder.one(spec, values)))


def _is_in_gold(finder: _Finder, silver: Found) -> bool:
    """Whether Gold, as readers see it, was made from a Silver version that holds the row."""
    position = finder.lake.state(HOURLY_STATS).newest_position(finder.gold[HOURLY_STATS.identifier].snapshot_id)
    source = position.position.get(_SILVER) if position and position.position else None
    steps = finder.ancestry(CLEANED_EVENTS)
    if source is None:
        return False
    # A row whose snapshot has expired is older than all that are kept.
    return silver.snapshot_id not in steps or (source in steps and steps[source] <= steps[silver.snapshot_id])


def _verdicts(finder: _Finder, bronze: Found, silver: Found | None) -> tuple[Mapping[str, Any], ...]:
    """Verdicts on the ranges that hold the event. Gold's ranges are Silver snapshots, all others Bronze snapshots."""
    received = bronze.row["bronze_processed_at"]
    since = received.astimezone(UTC).strftime("%Y-%m-%d") if received else "0001-01-01"
    spec = QUALITY_RESULTS
    head = finder.head(spec)
    if head is None:
        return ()
    rows = relation(
        finder.connection, spec, finder.table(spec), head, row_filter=GreaterThanOrEqual(term="run_date", value=since)
    )
    cursor = finder.connection.execute(
        f"SELECT * FROM ({rows}) WHERE run_date >= ? ORDER BY run_timestamp, table_name, check_name",  # noqa: S608
        [since],
    )
    names = [column[0] for column in cursor.description]
    verdicts = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    bronze_steps, silver_steps = finder.ancestry(RAW_EVENTS), finder.ancestry(CLEANED_EVENTS)
    silver_id = silver.snapshot_id if silver else None
    return tuple(
        verdict
        for verdict in verdicts
        if (
            covers(verdict["range_start"], verdict["range_end"], silver_id, silver_steps)
            if verdict["layer"] == "gold"
            else covers(verdict["range_start"], verdict["range_end"], bronze.snapshot_id, bronze_steps)
        )
    )


def covers(start: int | None, end: int | None, snapshot_id: int | None, steps: Mapping[int, int]) -> bool:
    """Whether the snapshots after ``start`` up to ``end`` include ``snapshot_id``.

    Args:
        start: exclusive; None or an expired snapshot lies before all that are kept.
        end: inclusive.
        snapshot_id: the snapshot in question; an expired one can no longer be placed and is not covered.
        steps: id -> steps back from the head, of the snapshots that are kept.
    """
    if snapshot_id is None or snapshot_id not in steps or end is None or end not in steps:
        return False
    if steps[end] > steps[snapshot_id]:
        return False
    return start is None or start not in steps or steps[snapshot_id] < steps[start]


def _dead_letters(finder: _Finder, event_id: str) -> tuple[Found, ...]:
    # DuckDB searches no bytes: compared as hexadecimal digits, and confirmed here, because a match may start at half a byte.
    needle = event_id.encode()
    condition = f"contains(hex(TRY(from_base64(original))), '{needle.hex().upper()}')"
    rows = finder.search(DEAD_LETTER, {}, finder.head(DEAD_LETTER), condition)
    matching = [row for row in rows if needle in base64.b64decode(row["original"])]
    return tuple(
        finder.located(DEAD_LETTER, row, {name: row[name] for name in DEAD_LETTER.key})
        for row in matching[:MAX_DEAD_LETTERS]
    )


def pseudonym(name: str, user_key: bytes) -> str:
    """``name``, or for an IP address what Gold calls it: ``ip-`` and 16 digits of its HMAC-SHA256 under the home's key."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name
    return address_pseudonym(name, user_key)


def _names_page(entity_id: str, name: str, user_key: bytes) -> bool:
    """Whether Gold's ``entity_id`` is the page ``name``; addresses within a title stand there as pseudonyms."""
    if entity_id == name:
        return True
    if not _PSEUDONYM.search(entity_id):
        return False
    pattern = r"(\S+)".join(re.escape(part) for part in _PSEUDONYM.split(entity_id))
    match = re.fullmatch(pattern, name)
    return match is not None and [address_pseudonym(part, user_key) for part in match.groups()] == _PSEUDONYM.findall(
        entity_id
    )


def _snapshot_of_file(table: Table, snapshot_id: int, file: str) -> int | None:
    """The snapshot that added the data file ``file``, from the manifests of ``snapshot_id``."""
    snapshot = table.snapshot_by_id(snapshot_id)
    for manifest in snapshot.manifests(table.io) if snapshot else ():
        if manifest.content != ManifestContent.DATA:
            continue
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True):
            if local_path(entry.data_file.file_path) == file:
                return entry.snapshot_id
    return None


def _all_equal(values: Mapping[str, Any]) -> BooleanExpression:
    together: BooleanExpression = AlwaysTrue()
    for name, value in values.items():
        together = And(together, EqualTo(term=name, value=value))
    return together
