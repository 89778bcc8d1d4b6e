"""From a step to Dagster's events: the step is carried out, and what it did is read from the lake.

A step that dies after its verdicts keeps every check, and its run is red; one that ran nothing is red too.
"""

from collections.abc import Generator, Iterator
from typing import Any

import dagster as dg

from wikistream_assets.alerts import Alerts
from wikistream_assets.components.events import gate_verdicts, materialization
from wikistream_assets.engine.context import GateReport
from wikistream_assets.engine.gate_control import pending_range
from wikistream_assets.engine.reports import recorded, report_of
from wikistream_assets.engine.step import Step
from wikistream_assets.exceptions import WikistreamError
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.resources.ports import Compute
from wikistream_assets.streams.registry import STREAMS

_Context = dg.AssetExecutionContext | dg.OpExecutionContext


def carried_out(step: Step, layer: str, compute: Compute, lake: Lakehouse) -> GateReport:
    """Carry the step out; returns what it did to ``layer``.

    Raises:
        StepError: the lake does not show that it did its work.
        WikistreamError: as the step.
    """
    stream = STREAMS[step.stream]
    before = pending_range(lake.look(), stream, layer)
    compute.run(step)
    return report_of(lake, stream, layer, step.run_id, before)


def audited(
    context: _Context,
    step: Step,
    layer: str,
    compute: Compute,
    lake: Lakehouse,
    alerts: Alerts,
) -> Generator[dg.AssetCheckResult, None, GateReport]:
    """Carry out a step that audits the tables of ``layer``, and yield its verdicts; returns its report to ``yield from``.

    Raises:
        StepError, WikistreamError: as ``carried_out``, after the verdicts that were recorded before.
    """
    try:
        report = carried_out(step, layer, compute, lake)
    except Exception:
        if (kept := _recorded(lake, step, layer)) is not None:
            yield from gate_verdicts(context, kept, lake, alerts)
        raise
    yield from gate_verdicts(context, report, lake, alerts)
    return report


def published(
    context: dg.AssetExecutionContext,
    step: Step,
    layer: str,
    compute: Compute,
    lake: Lakehouse,
    alerts: Alerts,
) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[Any]]:
    """Carry out a step that audits and publishes ``layer``: a verdict per rule, materializations only if it passed."""
    report = yield from audited(context, step, layer, compute, lake, alerts)
    if report.passed:
        yield from (materialization(lake, spec, report) for spec in STREAMS[step.stream].layers[layer])


def _recorded(lake: Lakehouse, step: Step, layer: str) -> GateReport | None:
    try:
        return recorded(lake, STREAMS[step.stream], layer, step.run_id)
    except (WikistreamError, OSError):
        return None  # the step may have failed for the same reason, which it tells itself
