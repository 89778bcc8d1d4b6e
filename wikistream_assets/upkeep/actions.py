"""The actions of a step that are not part of a cycle. Arguments and what is returned are values of JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from typing import Any

from wikistream_assets.engine.context import JobContext
from wikistream_assets.upkeep import backfill, maintenance, masking


def recompute(ctx: JobContext, dates: Sequence[str]) -> Mapping[str, Any]:
    """Hold Silver's ``dates`` (yyyy-MM-dd) against Bronze and compute Gold's again."""
    backfill.run(ctx, dates)
    return {}


def maintain(ctx: JobContext, layer: str, orphans: bool = False) -> Mapping[str, Any]:
    """Look after the tables of one layer of ``maintenance.LAYERS``; says what was done to each."""
    return {
        "reports": [asdict(report) for report in maintenance.maintain(ctx, maintenance.LAYERS[layer], orphans=orphans)]
    }


def mask(ctx: JobContext, layer: str, today: str) -> Mapping[str, Any]:
    """Hide names in the old rows of one layer of ``masking.ORDER``; says which dates of each table."""
    return {"reports": [asdict(report) for report in masking.mask(ctx, date.fromisoformat(today), layer)]}
