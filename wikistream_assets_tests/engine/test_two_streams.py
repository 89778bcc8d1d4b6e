"""Two streams in one lake: each has its own gates, leases, verdicts and alerts, and the other goes on when one is closed."""

import pytest

from wikistream_assets.engine.audit_log import newest_verdicts
from wikistream_assets.engine.gate_control import decide_on_failure, gate_states
from wikistream_assets.engine.retained import readers_of
from wikistream_assets.exceptions import GateError
from wikistream_assets.lake import lakehouse
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.metrics.lake import LakeMetrics
from wikistream_assets.quality.rule import Status
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.stream import EDITS
from wikistream_assets.streams.registry import ALL_TABLES, STREAMS, TABLE_BY_IDENTIFIER
from wikistream_assets.tables.dq_audit import QUALITY_RESULTS
from wikistream_assets_tests.engine.gate_lakes import GateLake, blocking
from wikistream_assets_tests.quality.samples import clean_rows
from wikistream_assets_tests.streams.second import SECOND

pytestmark = pytest.mark.spark


@pytest.fixture
def both(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> tuple[GateLake, GateLake]:
    """The two streams, declared side by side, in one home."""
    monkeypatch.setitem(STREAMS, SECOND.name, SECOND)
    monkeypatch.setattr(lakehouse, "ALL_TABLES", (*ALL_TABLES, *SECOND.tables))
    monkeypatch.setattr(lakehouse, "_CONTRACTS", "both")
    for spec in SECOND.tables:
        monkeypatch.setitem(TABLE_BY_IDENTIFIER, spec.identifier, spec)
    return GateLake(settings), GateLake(settings, SECOND)


def _rows(gates: GateLake, layer: str) -> int:
    head = gates.lake.state(gates.ctx.stream.publication(layer).leader).head()
    assert head is not None
    return head.total_records


def _streams_in(lake: Lakehouse) -> set[tuple[str, str]]:
    rows = lake.table(QUALITY_RESULTS).scan(selected_fields=("stream", "layer")).to_arrow().to_pylist()
    return {(row["stream"], row["layer"]) for row in rows}


def test_one_stream_s_closed_gate_does_not_hold_up_the_other(both: tuple[GateLake, GateLake]) -> None:
    edits, second = both
    bad = clean_rows(EDITS.raw)
    bad[7]["event_type"] = "flow!"
    edits.add_bronze(bad)
    second.add_bronze(clean_rows(EDITS.raw))
    assert blocking(edits.bronze_gate()) == {"event_type_valid": Status.FAILED}
    assert all(report.passed and report.advanced for report in second.cycle())
    assert not edits.silver().advanced
    assert (_rows(edits, "silver"), _rows(second, "silver")) == (0, 900)
    assert _rows(second, "gold") > 0 == _rows(edits, "gold")

    blocked = {(state.stream.name, state.layer) for state in gate_states(edits.lake) if state.blocked}
    assert blocked == {("edits", "bronze")}
    assert _streams_in(edits.lake) == {("edits", "bronze"), *((SECOND.name, layer) for layer in SECOND.layers)}
    newest = {(row["stream"], row["layer"]) for row in newest_verdicts(edits.lake)}
    assert newest == _streams_in(edits.lake)
    figures = {
        (sample.labels["stream"], sample.labels["layer"]): sample.value
        for family in LakeMetrics(edits.ctx.settings).collect()
        for sample in family.samples
        if sample.name == "wikistream_gate_blocked"
    }
    assert {gate for gate, value in figures.items() if value} == blocked
    assert len(figures) == 6

    check = (EDITS.raw.identifier, "event_type_valid")
    with pytest.raises(GateError, match="does not block anything now"):
        decide_on_failure(second.ctx, "accept", *check, reason="not mine", decided_by="ada")
    decide_on_failure(edits.ctx, "accept", *check, reason="once", decided_by="ada")
    assert all(report.passed for report in edits.cycle())
    assert not any(state.blocked for state in gate_states(edits.lake))


def test_what_one_stream_holds_and_needs_is_not_the_other_s(both: tuple[GateLake, GateLake]) -> None:
    edits, second = both
    for gates in both:
        gates.add_bronze(clean_rows(EDITS.raw)[:100])
    leases, spark = edits.ctx.leases, edits.ctx.spark
    with leases.only_run(spark, EDITS.lease("silver")), leases.only_maintenance(EDITS.lease("silver")):
        assert all(report.passed for report in second.cycle())
    states = edits.lake.look()
    assert readers_of(states, EDITS.raw) == {states[EDITS.raw].first}, "nothing of the edits has been read"
    assert readers_of(states, SECOND.raw) == {states[SECOND.raw].head_id()}
