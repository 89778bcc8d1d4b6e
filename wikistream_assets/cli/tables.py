"""``wikistream tables``: what the lake holds, and the hashes that prove two lakes equal."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from wikistream_assets.cli.console import json_text, open_lake, show_table

if TYPE_CHECKING:
    from wikistream_assets.lake.lakehouse import Lakehouse


def tables(
    with_hash: Annotated[
        bool, typer.Option("--hash", help="add an order-free hash of the rows, without times of processing and offsets")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a table")] = False,
) -> None:
    """Show every table: rows, files, size, newest snapshot, and what it has consumed. Gold: as of its newest common version."""
    from wikistream_assets.lake.table_hash import table_hashes

    _, lake = open_lake()
    hashes = table_hashes(lake) if with_hash else {}
    lines = [line | ({"hash": hashes.get(line["table"])} if with_hash else {}) for line in describe_tables(lake)]
    if as_json:
        for line in lines:
            print(json_text(line))
        return
    columns = ["table", "rows", "files", "size", "snapshot at", "position", *(["hash"] if with_hash else [])]
    show_table(columns, [_shown(line, with_hash) for line in lines], numeric=("size",))


def describe_tables(lake: "Lakehouse") -> list[dict[str, Any]]:
    """One entry per table, at the version a reader sees.

    Keys: table, rows, files, bytes (of the data files), snapshot_id, snapshot_at (UTC), position (what the table has
    consumed, None if nothing yet).

    Raises:
        LakeError: the four Gold tables have no version in common.
    """
    from wikistream_assets.lake.query import readable_versions
    from wikistream_assets.streams.registry import ALL_TABLES

    entries = []
    versions = readable_versions(lake)
    for spec in ALL_TABLES:
        version = versions[spec.identifier]
        snapshot = lake.table(spec).snapshot_by_id(version.snapshot_id)
        summary = snapshot.summary.additional_properties if snapshot and snapshot.summary else {}
        consumed = lake.state(spec).newest_position(version.snapshot_id)
        entries.append(
            {
                "table": spec.identifier,
                "rows": version.total_records,
                "files": int(summary.get("total-data-files", 0)),
                "bytes": int(summary.get("total-files-size", 0)),
                "snapshot_id": version.snapshot_id,
                "snapshot_at": version.committed_at,
                "position": consumed.position if consumed else None,
            }
        )
    return entries


def _shown(line: dict[str, Any], with_hash: bool) -> list[object]:
    position = json_text(line["position"]) if line["position"] else "-"
    at = line["snapshot_at"].strftime("%Y-%m-%d %H:%M:%SZ")
    row = [line["table"], line["rows"], line["files"], _size(line["bytes"]), at, position]
    return [*row, line["hash"] or "-"] if with_hash else row


def _size(count: int) -> str:
    """Bytes with a binary unit, three digits at most before it."""
    size, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1000:
            break
        size, unit = size / 1024, larger
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
