"""Bronze in Dagster: draining Kafka is the materialization, the gate is a set of checks between Bronze and Silver."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

import dagster as dg

from producer.cursor import GAP_TOLD
from producer.launch import run_producer
from producer.topics import EVENT_TOPICS, SSE_CURSOR
from wikistream_assets.components.events import (
    SOURCE_WITHOUT_GAP,
    TryAgainError,
    asset_key,
    asset_spec,
    check_specs,
    materialization,
    plain_failures,
)
from wikistream_assets.components.steps import audited
from wikistream_assets.embedded.source import chosen_source, demo_source
from wikistream_assets.engine.bronze_gate import LAYER as BRONZE
from wikistream_assets.engine.bronze_gate import gate_lease
from wikistream_assets.engine.step import Action, Step
from wikistream_assets.exceptions import BrokerError, StepError
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.resources.ports import Compute, KafkaBroker, Lake, Notifier
from wikistream_assets.settings import load_settings
from wikistream_assets.streams.edits.stream import EDITS
from wikistream_assets.streams.edits.tables import DEAD_LETTER, RAW_EVENTS

_SETTINGS: Final = load_settings()
FRESH_SECONDS: Final = round(_SETTINGS.bronze_trigger_seconds + _SETTINGS.bronze_fresh_seconds)
"""How old Bronze may be. What is promised (profile ``source``: three minutes) counts from when a batch is due, this from the one
before. Without the trigger's interval, three minutes there as well, Bronze would be stale ahead of each batch that is in time."""

_RETRIES: Final = 3
_RETRY_SECONDS: Final = 20
"""What keeps the broker running starts it again in some 15 seconds."""


_FIGURES: Final = {
    "records read": "records",
    "rows": "rows",
    "dead letters": "dead_letters",
    "duplicates": "duplicates",
    "micro-batches": "batches",
    "waited for the live stream": "waited",
}
"""What a drain says about itself, by the name that it is shown under."""


@dg.multi_asset(
    name="bronze_drain",
    specs=[
        asset_spec(spec, kinds=("iceberg", "spark", "kafka"), fresh_seconds=FRESH_SECONDS)
        for spec in (RAW_EVENTS, DEAD_LETTER)
    ],
    pool=EDITS.lease(BRONZE),
    description="Drains what is in Kafka now; while a live stream owns the tables, waits until it has caught up as far.",
)
def bronze(
    context: dg.AssetExecutionContext,
    compute: dg.ResourceParam[Compute],
    lake: dg.ResourceParam[Lake],
    broker: dg.ResourceParam[KafkaBroker],
) -> Iterator[dg.MaterializeResult[Any]]:
    with plain_failures():
        lakehouse = lake.open()
        if broker.hold(context.log.info):
            _read_first_events(broker.connect(), lakehouse, context.log.info)
        try:
            ends = broker.connect().ends(EVENT_TOPICS)
            said = compute.run(Step(EDITS.name, Action.DRAIN, context.run.run_id))
            if broker.connect().has_committed_records(lakehouse.state(RAW_EVENTS).position, ends):
                raise StepError("bronze: the step ran, and records that were in Kafka before it still wait there")
        except BrokerError as error:
            raise TryAgainError(error, _RETRIES, _RETRY_SECONDS) from dg.Failure(str(error))
    figures: dict[str, Any] = {name: said[field] for name, field in _FIGURES.items() if field in said}
    if "position" in said:
        figures["position"] = dg.MetadataValue.json(said["position"])
    for spec in (RAW_EVENTS, DEAD_LETTER):
        result = materialization(lakehouse, spec)
        yield result._replace(metadata={**(result.metadata or {}), **figures})


@dg.multi_asset_check(
    name="bronze_gate",
    specs=check_specs(RAW_EVENTS),
    pool=gate_lease(EDITS),
    description="Audits the Bronze snapshots no gate has seen; a pass moves the tag up to which Silver may read.",
)
def bronze_gate(
    context: dg.AssetCheckExecutionContext,
    compute: dg.ResourceParam[Compute],
    lake: dg.ResourceParam[Lake],
    notifier: dg.ResourceParam[Notifier],
) -> Iterator[dg.AssetCheckResult]:
    op = context.op_execution_context
    step = Step(EDITS.name, Action.GATE, op.run.run_id)
    with plain_failures():
        yield from audited(op, step, BRONZE, compute, lake.open(), notifier.open())


@dg.asset_check(
    name=SOURCE_WITHOUT_GAP,
    asset=asset_key(RAW_EVENTS),
    description="In the last day the source has left no event out. A warning: no gate can bring back what was never received.",
)
def source_without_gap(broker: dg.ResourceParam[KafkaBroker]) -> dg.AssetCheckResult:
    with plain_failures():
        chosen = chosen_source(load_settings())
        try:
            found = broker.connect().newest_cursor(chosen.source.identity) if chosen else None
        except BrokerError as error:
            raise TryAgainError(error, _RETRIES, _RETRY_SECONDS) from dg.Failure(str(error))
    gaps = found[0].gaps_since(datetime.now(UTC) - GAP_TOLD) if found else []
    return dg.AssetCheckResult(
        passed=not gaps,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"gaps in the last day: {len(gaps)}"
        + (f", newest noticed at {gaps[-1].detected_at}" if gaps else ""),
        metadata={"gaps": dg.MetadataValue.json([gap.as_dict() for gap in gaps])},
    )


def _read_first_events(broker: Broker, lake: Lakehouse, report: Callable[[str], None]) -> None:
    """Read what the demo reads if nothing has ever come and no source was chosen: who materializes wants to see something."""
    untouched = not lake.state(RAW_EVENTS).position and not any(
        end for ends in broker.ends((*EVENT_TOPICS, SSE_CURSOR)).values() for end in ends.values()
    )
    settings = load_settings()
    if untouched and chosen_source(settings) is None:
        report(
            "nothing has been read yet and no source was chosen: reading the demo's synthetic events; "
            "'make up SOURCE=..' reads another source"
        )
        run_producer(demo_source(settings), settings)
