"""The generator's stream through the real pipeline, in two parts: every row of every table equals a plain recomputation.

The same proof as on public captures, for everybody who has none.
"""

import gzip
from collections import Counter
from pathlib import Path

import pytest

from producer.eventstreams.generator import Generator, Line
from producer.wikis import FOLLOWED_DOMAINS
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.streams.edits.tables import DEAD_LETTER, RISK_SCORES
from wikistream_assets_tests import oracle
from wikistream_assets_tests.conftest import SettingsFactory
from wikistream_assets_tests.e2e.pipeline import Pipeline

pytestmark = pytest.mark.e2e

STREAM = Generator(events=12_000, redelivered=0.02, malformed=0.005)
"""Enough for the planted accounts to stand out; of its lines 240 come twice and 60 are broken."""


def test_the_generated_stream_becomes_exactly_its_tables(
    settings_factory: SettingsFactory, fresh_topics: Broker, tmp_path: Path
) -> None:
    pipeline = Pipeline(settings_factory(bootstrap_servers=fresh_topics.bootstrap_servers))
    lines = list(STREAM.lines())
    # The second part begins within a day and an hour, and brings events of the first again.
    for number, part in enumerate((lines[:7_000], lines[6_900:])):
        pipeline.ingest(_capture(part, tmp_path / f"part{number}.jsonl.gz"))
        assert all(report.passed and report.advanced for report in pipeline.cycle())

    events = [line.data.decode() for line in lines if line.defect is None]
    pipeline.assert_tables_follow_from(events, FOLLOWED_DOMAINS)
    assert oracle.quarantined_ids(oracle.bronze_rows(events, FOLLOWED_DOMAINS)), "some events have no author"
    assert any(row["risk_level"] == "HIGH" for row in pipeline.rows(RISK_SCORES))
    sent = Counter(line.defect.value for line in [*lines[:7_000], *lines[6_900:]] if line.defect)
    assert Counter(row["reason"] for row in pipeline.rows(DEAD_LETTER)) == sent


def _capture(lines: list[Line], path: Path) -> Path:
    path.write_bytes(gzip.compress(b"".join(line.data + b"\n" for line in lines)))
    return path
