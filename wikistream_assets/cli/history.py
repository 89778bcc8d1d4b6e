"""``wikistream snapshots``, ``diff`` and ``rollback``: a table's past, what has changed since, and the way back."""

import getpass
from typing import Annotated

import typer

from wikistream_assets.cli.console import job_context, open_lake, plain, printable, show_table

_Table = Annotated[str, typer.Argument(help="namespace.name")]
_Snapshot = Annotated[str, typer.Argument(help="a snapshot's id, a branch or a tag; see: wikistream snapshots TABLE")]


def snapshots(
    table: _Table, limit: Annotated[int, typer.Option("--limit", min=1, help="newest snapshots to show")] = 20
) -> None:
    """List the snapshots of a table's main branch, newest first: what they added, and what points to them."""
    from itertools import islice

    from wikistream_assets.lake.lakehouse import table_spec

    _, lake = open_lake()
    spec = table_spec(table)
    refs = lake.table(spec).metadata.refs
    show_table(
        ["snapshot", "at", "operation", "added", "rows", "position", "refs"],
        [
            (
                str(version.snapshot_id),
                version.committed_at.strftime("%Y-%m-%d %H:%M:%SZ"),
                version.operation,
                version.added_records,
                version.total_records,
                "yes" if version.position is not None else "-",
                ", ".join(name for name, ref in refs.items() if ref.snapshot_id == version.snapshot_id) or "-",
            )
            for version in islice(lake.state(spec).history(), limit)
        ],
        numeric=("snapshot",),
    )


def diff(
    table: _Table,
    before: _Snapshot,
    after: _Snapshot,
    examples: Annotated[int, typer.Option("--examples", min=0, help="rows to show")] = 10,
) -> None:
    """Count the rows added, removed and changed between two snapshots, by key; times of processing are not compared."""
    from wikistream_assets.lake.diff import difference, version_named
    from wikistream_assets.lake.lakehouse import table_spec

    _, lake = open_lake()
    spec = table_spec(table)
    old, new = (version_named(lake, spec, name).snapshot_id for name in (before, after))
    found = difference(lake, spec, old, new, examples)
    typer.echo(
        f"{spec.identifier}: {found.added} added, {found.removed} removed, {found.changed} changed ({found.files} files read)"
    )
    if found.examples:
        rows = [
            (
                example.change,
                "/".join(plain(value) for value in example.key.values()),
                "; ".join(f"{name}: {plain(was)} > {plain(now)}" for name, (was, now) in example.columns.items())
                or "-",
            )
            for example in found.examples
        ]
        show_table(["change", "/".join(spec.key), "columns"], rows)


def rollback(
    table: _Table,
    snapshot: _Snapshot,
    reason: Annotated[str, typer.Option("--reason", help="why; recorded in dq_audit.gate_decisions")],
    by: Annotated[str | None, typer.Option("--by", help="who; default: the login name")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show what would be set back, change nothing")] = False,
) -> None:
    """Set a table back to an earlier snapshot, and with it the tables that follow from it. The next cycle goes on from there.

    Bronze goes back only while the stream is stopped, and the broker is asked whether it still has the records: if it does not
    run, it is started for that, also for a dry run.
    """
    from wikistream_assets.embedded import services
    from wikistream_assets.lake.diff import version_named
    from wikistream_assets.lake.lakehouse import table_spec
    from wikistream_assets.streams.edits.tables import RAW_EVENTS
    from wikistream_assets.upkeep.rollback import roll_back

    ctx = job_context("wikistream rollback")
    spec = table_spec(table)
    target = version_named(ctx.lake, spec, snapshot).snapshot_id
    if spec is RAW_EVENTS and not services.broker_runs(ctx.settings):
        services.up(ctx.settings)  # the broker alone: it knows whether it still has what the stream would read again
    done = roll_back(ctx, spec, target, reason=reason, decided_by=by or getpass.getuser(), dry_run=dry_run)
    for line in done.lines or [f"{spec.identifier} is there already"]:
        typer.echo(printable(line))
    typer.echo("dry run, nothing changed" if dry_run else "done; the next cycle goes on from there")
