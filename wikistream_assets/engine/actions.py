"""The actions of a step that every cycle is made of. Arguments and what is returned are values of JSON."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from wikistream_assets.engine import bronze_gate, ingest, publication
from wikistream_assets.engine.context import JobContext
from wikistream_assets.engine.decisions import Action as Decided
from wikistream_assets.engine.gate_control import decide_on_failure
from wikistream_assets.exceptions import ConfigurationError


def drain(ctx: JobContext) -> Mapping[str, Any]:
    """Bring everything into Bronze that is in Kafka now; says how many records became what."""
    return asdict(ingest.drain(ctx))


def gate(ctx: JobContext) -> Mapping[str, Any]:
    """Audit what is new in Bronze."""
    bronze_gate.run(ctx)
    return {}


def publish(ctx: JobContext, layer: str) -> Mapping[str, Any]:
    """Build, audit and publish what is pending for ``layer``."""
    known = {published.layer: published for published in ctx.stream.publications}
    if layer not in known:
        raise ConfigurationError(f"layer: {layer!r} is none of {', '.join(known)}")
    publication.run(ctx, known[layer])
    return {}


def decide(
    ctx: JobContext,
    action: Decided,
    table: str,
    check: str,
    reason: str,
    decided_by: str,
    where: str | None = None,
    dry_run: bool = False,
) -> Mapping[str, Any]:
    """Record an operator's decision; says what it covers."""
    preview = decide_on_failure(
        ctx, action, table, check, reason=reason, decided_by=decided_by, predicate=where, dry_run=dry_run
    )
    return {"text": preview.text, "rows": preview.rows}
