"""What a step did, as the lake tells it: its verdicts are in ``dq_audit``, and what it published carries its run's id.

So a step that dies after its verdicts keeps every one of them, and one that did nothing is not taken for one that passed,
wherever it ran.
"""

from wikistream_assets.engine import audit_log, bronze_gate
from wikistream_assets.engine.context import GateReport, SnapshotRange
from wikistream_assets.engine.gate_control import pending_range
from wikistream_assets.exceptions import StepError
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.streams.declaration import Stream
from wikistream_assets.tables.spec import TableSpec


def recorded(lake: Lakehouse, stream: Stream, layer: str, run_id: str) -> GateReport | None:
    """The verdicts that the run has recorded about ``layer``; None if it has none."""
    verdicts = audit_log.verdicts_of_run(lake, stream, layer, run_id)
    if not verdicts:
        return None
    covered = SnapshotRange(verdicts[0]["range_start"], verdicts[0]["range_end"])
    return GateReport(layer, covered, audit_log.outcomes_of(lake, stream.layers[layer], verdicts))


def report_of(lake: Lakehouse, stream: Stream, layer: str, run_id: str, before: SnapshotRange) -> GateReport:
    """What the run has done to ``layer``, now that its step has ended without an error.

    Args:
        before: what was pending before the step began.

    Raises:
        StepError: something was pending, and nothing shows that the run audited it; or it passed and is not published.
    """
    tables = stream.layers[layer]
    now = pending_range(lake.look(), stream, layer)
    moved = now.start != before.start
    advanced = moved if layer == bronze_gate.LAYER else _made_by(lake, tables[0], run_id)
    found = recorded(lake, stream, layer, run_id)
    if found is not None:
        if found.passed and not (advanced or moved):
            raise StepError(f"{layer}: the range passed its gate, but the step has not published it; start it again")
        return GateReport(layer, found.range, found.outcomes, advanced)
    if before.empty or moved:
        # Nothing was to be done; or a killed attempt had left the same verdicts; or another run was faster.
        published = SnapshotRange(before.start, now.start)
        return GateReport(layer, published, audit_log.stored_outcomes(lake, stream, layer, tables, now.start), advanced)
    raise StepError(
        f"{layer}: the step ran nothing: snapshots wait for its gate, and it has recorded no verdict on them"
    )


def _made_by(lake: Lakehouse, spec: TableSpec, run_id: str) -> bool:
    newest = lake.state(spec).newest_position()
    return newest is not None and newest.run_id == run_id
