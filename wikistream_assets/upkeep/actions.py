"""The actions of a step that are not part of a cycle. Arguments and what is returned are values of JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from typing import Any

from wikistream_assets.engine.context import JobContext
from wikistream_assets.upkeep import backfill, maintenance, masking
from wikistream_assets.upkeep.maintenance import layers_of


def recompute(ctx: JobContext, dates: Sequence[str]) -> Mapping[str, Any]:
    """Hold Silver's ``dates`` (yyyy-MM-dd) against Bronze and compute Gold's again."""
    backfill.run(ctx, dates)
    return {}


def maintain(ctx: JobContext, layer: str, orphans: bool = False) -> Mapping[str, Any]:
    """Look after the tables of one layer; says what was done to each."""
    tables = layers_of(ctx.stream)[layer]
    return {"reports": [asdict(report) for report in maintenance.maintain(ctx, tables, orphans=orphans)]}


def mask(ctx: JobContext, layer: str, today: str) -> Mapping[str, Any]:
    """Hide names in the old rows of one layer; says which dates of each table."""
    return {"reports": [asdict(report) for report in masking.mask(ctx, date.fromisoformat(today), layer)]}
