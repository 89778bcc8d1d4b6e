"""``wikistream maintain`` and ``mask``: what the schedules do, by hand."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from wikistream_assets.cli.console import job_context, show_table


def maintain(
    tables: Annotated[list[str] | None, typer.Argument(help="namespace.name of tables; default: all")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show what would be done, change nothing")] = False,
) -> None:
    """Compact small files, rewrite manifests, expire snapshots that nobody needs, delete orphan files."""
    from wikistream_assets.lake.lakehouse import table_spec
    from wikistream_assets.streams.registry import ALL_TABLES
    from wikistream_assets.upkeep import maintenance

    ctx = job_context("wikistream maintain")
    specs = [table_spec(name) for name in tables] if tables else list(ALL_TABLES)
    reports = list(maintenance.maintain(ctx, specs, orphans=True, dry_run=dry_run))
    show_table(
        ["table", "files", "manifests", "snapshots", "compacted", "expired", "orphans", "left undone"],
        [
            (
                report.table,
                f"{report.before.files} > {report.after.files}",
                f"{report.before.manifests} > {report.after.manifests}",
                f"{report.before.snapshots} > {report.after.snapshots}",
                report.compacted,
                report.expired,
                report.orphans,
                report.note or "-",
            )
            for report in reports
        ],
        numeric=("files", "manifests", "snapshots"),
    )
    typer.echo("dry run, nothing changed" if dry_run else "done")


def mask(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show what would be masked, change nothing")] = False,
) -> None:
    """Hide names, addresses and free text of events older than WIKISTREAM_PRIVACY_MASK_AFTER_DAYS; there is no way back."""
    from wikistream_assets.alerts import Alerts
    from wikistream_assets.upkeep import masking

    ctx = job_context("wikistream mask")
    today = datetime.now(UTC).date()
    reports = [
        report
        for layer in masking.layers_to_mask(ctx.stream)
        for report in masking.mask(ctx, today, layer, dry_run=dry_run)
    ]
    show_table(
        ["table", "masked", "waiting for a reader", "note"],
        [(report.table, _dates(report.dates), _dates(report.waiting), report.note or "-") for report in reports],
        numeric=("masked", "waiting for a reader"),
    )
    forgotten = Alerts(ctx.settings).forget(ctx.settings.names_kept_since(today), dry_run=dry_run)
    typer.echo(f"lines of the alert log that are as old: {forgotten}")
    typer.echo(
        "dry run, nothing changed"
        if dry_run
        else "done; the files from before are deleted by the first maintenance after the next cycle"
    )


def _dates(dates: tuple[str, ...]) -> str:
    return f"{len(dates)} dates, {dates[0]} to {dates[-1]}" if dates else "-"
