"""Real captures through the real pipeline: every row of every table equals a plain recomputation from the events."""

import gzip
import json
from pathlib import Path

import pytest

from producer.wikis import FOLLOWED_DOMAINS
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.lake.table_hash import table_hashes
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.tables import DEAD_LETTER, QUARANTINE, RAW_EVENTS
from wikistream_assets_tests.conftest import SettingsFactory
from wikistream_assets_tests.e2e.pipeline import Pipeline, capture_lines

pytestmark = [pytest.mark.e2e, pytest.mark.real_data]

CAPTURES = (
    "recentchange_2021-08-27_1950.sse.gz",
    "recentchange_2021-08-27_1950_sse.jsonl.gz",
    "recentchange_2021-10-07_08_es_en_de.jsonl.gz",
    "recentchange_2021-10-07_08_es_global.jsonl.gz",
    "recentchange_2021-01-21_1000_edits.jsonl.gz",
    "wikiticker_2015-09-12_39244_reenveloped.jsonl.gz",
    "irc_2014-05-01_en_reenveloped.jsonl.gz",
)


@pytest.fixture
def events_folder() -> Path:
    folder = Settings().data.resolve() / "events"
    if not folder.is_dir():
        pytest.skip(f"no captures in {folder}: set WIKISTREAM_DATA")
    return folder


@pytest.fixture
def settings(settings_factory: SettingsFactory, fresh_topics: Broker) -> Settings:
    return settings_factory(bootstrap_servers=fresh_topics.bootstrap_servers)


@pytest.fixture
def pipeline(settings: Settings) -> Pipeline:
    return Pipeline(settings)


@pytest.mark.parametrize("name", CAPTURES)
def test_a_capture_becomes_exactly_its_tables(pipeline: Pipeline, events_folder: Path, name: str) -> None:
    lines = capture_lines(events_folder / name)
    run = pipeline.ingest(events_folder / name)["run"]
    assert run["received"] == len(lines)
    assert run["accepted"] + run["filtered"] + run["canary"] == len(lines)
    reports = pipeline.cycle()
    assert all(report.passed and report.advanced for report in reports)
    alarms = [o for report in reports for o in report.outcomes if o.status.value not in ("PASSED", "SKIPPED")]
    assert alarms == [], "clean captures raise no false alarm"
    pipeline.assert_tables_follow_from(lines, FOLLOWED_DOMAINS)
    assert pipeline.rows(QUARANTINE) == []


@pytest.mark.long
def test_overlapping_captures_give_each_event_once_in_any_order(
    pipeline: Pipeline, events_folder: Path, settings_factory: SettingsFactory, fresh_topics: Broker
) -> None:
    large = events_folder / "recentchange_2021-10-07_08_es_en_de.jsonl.gz"
    small = events_folder / "recentchange_2021-10-07_08_es_global.jsonl.gz"
    for path in (small, large):
        pipeline.ingest(path)
        assert all(report.passed for report in pipeline.cycle())
    pipeline.assert_tables_follow_from(capture_lines(small) + capture_lines(large), FOLLOWED_DOMAINS)

    together = settings_factory(bootstrap_servers=fresh_topics.bootstrap_servers)
    at_once = Pipeline(together)
    assert all(report.passed for report in at_once.cycle()), "both captures are in the topic by now"
    assert table_hashes(at_once.lake) == table_hashes(pipeline.lake)

    before = {spec: pipeline.lake.state(spec).head() for spec in (RAW_EVENTS, QUARANTINE)}
    pipeline.cycle()
    assert {spec: pipeline.lake.state(spec).head() for spec in before} == before


def test_a_thousand_malformed_lines_are_dead_letters_and_nothing_else(
    pipeline: Pipeline, events_folder: Path, tmp_path: Path
) -> None:
    lines = capture_lines(events_folder / "recentchange_2021-08-27_1950.sse.gz")
    spoiled = []
    for number in range(1000):
        event = json.loads(lines[number])
        match number % 5:
            case 0:
                spoiled.append(lines[number][: 40 + number % 200])
            case 1:
                del event["meta"]["id"]
                spoiled.append(json.dumps(event))
            case 2:
                del event["meta"]["domain"]
                spoiled.append(json.dumps(event))
            case 3:
                del event["type"]
                spoiled.append(json.dumps(event))
            case 4:
                del event["meta"]["dt"], event["timestamp"]
                spoiled.append(json.dumps(event))
    mixed = [line for pair in zip(lines, spoiled, strict=False) for line in pair] + lines[1000:]
    path = tmp_path / "mixed.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(mixed).encode()))
    run = pipeline.ingest(path)["run"]
    assert run["dead_lettered"] == {
        "not_json": 200, "missing_id": 200, "missing_domain": 200, "missing_type": 200, "missing_time": 200,
    }  # fmt: skip
    assert all(report.passed for report in pipeline.cycle())
    assert len(pipeline.rows(DEAD_LETTER)) == 1000
    pipeline.assert_tables_follow_from(lines, FOLLOWED_DOMAINS)
