"""Dead letters and back: through a real Kafka into a real Bronze, out of it, and into it again."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from producer.contract import Contract, Rejected
from producer.redrive import Place
from producer.topics import DLQ_EVENTS
from wikistream_assets.definitions import defs
from wikistream_assets.defs.ops.dead_letters import every_six_hours
from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.engine.ingest import drain
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.stream import EDITS
from wikistream_assets.streams.edits.tables import DEAD_LETTER, RAW_EVENTS
from wikistream_assets.upkeep.backup import back_up, restore
from wikistream_assets.upkeep.redrive import RedriveReport, Selection, redrive
from wikistream_assets_tests.cli.runner import wikistream
from wikistream_assets_tests.conftest import SettingsFactory, child_environment, empty_topics
from wikistream_assets_tests.contexts import job_in
from wikistream_assets_tests.engine.bronze_lakes import assert_sound, event_ids, table_rows, totals
from wikistream_assets_tests.kafka_records import INGESTED_AT, Message, envelope, event_message, produce
from wikistream_assets_tests.lake.lakes import add
from wikistream_assets_tests.producer.samples import ID, line

pytestmark = [pytest.mark.spark, pytest.mark.kafka]

OVERSIZED, NOT_JSON = 5, 3


@pytest.fixture
def settings(settings_factory: SettingsFactory, fresh_topics: Broker) -> Settings:
    return settings_factory(bootstrap_servers=fresh_topics.bootstrap_servers, dlq_max_attempts=2)


def big(number: int, **change: object) -> str:
    """An event over yesterday's limit of 2,000 bytes."""
    return line(comment="é" * 2_000, **change).replace(ID, f"big-{number}")


def letter(text: bytes) -> Message:
    """What a producer with yesterday's settings made of a line."""
    verdict = Contract(None, max_event_bytes=2_000, now=lambda: INGESTED_AT).judge(text)
    assert isinstance(verdict, Rejected)
    return Message(DLQ_EVENTS, envelope("live").rejected_value(verdict, text))


def attempts_by_reason(lake: Lakehouse) -> Counter[tuple[str, int]]:
    return Counter((row["reason"], row["attempts"]) for row in table_rows(lake, DEAD_LETTER, "reason", "attempts"))


def test_the_life_of_dead_letters(lake: Lakehouse, settings: Settings) -> None:
    soon = INGESTED_AT + timedelta(hours=30)  # too far ahead then, in the past now
    produce(
        settings.bootstrap_servers,
        [
            *(letter(big(number).encode()) for number in range(OVERSIZED)),
            letter(big(90, meta_domain="xx.wikipedia.org").encode()),
            letter(line(timestamp=int(soon.timestamp())).replace(ID, "future").encode()),
            *(letter(b'{"cut off' + bytes([number])) for number in range(NOT_JSON)),
            Message("raw-events", b"?", partition=0),  # damaged on the way
            event_message("lost", line("meta_id"), partition=0),  # an envelope that Bronze opened and found no id in
        ],
    )
    drain(job_in(settings))
    before = totals(lake)
    assert before == {"records": 12, "rows": 0, "dead_letters": 12, "duplicates": 0}

    expected = RedriveReport(accepted=OVERSIZED + 1, rejected=NOT_JSON + 1, skipped=1, damaged=1)
    for _ in range(2):  # looking changes nothing
        assert redrive(lake, EDITS, settings, Selection(), dry_run=True) == expected
    _selections(lake, settings)

    began = datetime.now(UTC)
    assert redrive(lake, EDITS, settings, Selection()) == expected
    # before Bronze has seen any of it: nothing is due
    assert redrive(lake, EDITS, settings, Selection()) == RedriveReport(damaged=1)
    drain(job_in(settings))
    assert event_ids(lake) == sorted(["future", *(f"big-{number}" for number in range(OVERSIZED))])
    sent = OVERSIZED + 1 + NOT_JSON + 1
    assert totals(lake) == {"records": 12 + sent, "rows": 6, "dead_letters": 12 + NOT_JSON + 1, "duplicates": 0}
    assert_sound(lake)
    for row in table_rows(lake, RAW_EVENTS):
        assert row["source_mode"] == "live"
        assert began - timedelta(seconds=1) <= row["producer_ingested_at"] <= datetime.now(UTC)
        if row["event_id"] != "future":
            assert row["payload"] == big(int(row["event_id"].removeprefix("big-")))
    again = attempts_by_reason(lake)
    assert (again["not_json", 0], again["not_json", 1], again["missing_id", 1]) == (NOT_JSON, NOT_JSON, 1)

    # the last attempt: what fails now is given up
    last = redrive(lake, EDITS, settings, Selection())
    assert last == RedriveReport(rejected=NOT_JSON + 1, now_given_up=NOT_JSON + 1, damaged=1)
    drain(job_in(settings))
    assert redrive(lake, EDITS, settings, Selection()) == RedriveReport(given_up=NOT_JSON + 1, damaged=1)
    listed = wikistream("dlq", "list", settings=settings)
    (counts,) = [row.split() for row in listed.stdout.splitlines() if "not_json" in row]
    assert counts[:4] == ["dlq-events", "not_json", str(3 * NOT_JSON), str(NOT_JSON)]
    assert_sound(lake)


def _selections(lake: Lakehouse, settings: Settings) -> None:
    def looked_at(**selection: object) -> tuple[int, int]:
        report = redrive(lake, EDITS, settings, Selection(**selection), dry_run=True)  # type: ignore[arg-type]
        return report.redriven, report.waiting

    assert looked_at(reason="not_json") == (NOT_JSON, 8)
    assert looked_at(reason="unreadable_envelope") == (0, 11)
    assert looked_at(limit=4) == (4, 7)
    assert looked_at(place=Place(DLQ_EVENTS, 0, 0)) == (1, 10)
    assert looked_at(since=INGESTED_AT) == (11, 0)
    assert looked_at(since=INGESTED_AT + timedelta(seconds=1)) == (1, 10)  # what Bronze itself rejected, just now


def test_letters_of_a_lost_kafka_are_not_taken_for_those_at_their_place_now(
    lake: Lakehouse,
    settings: Settings,
    settings_factory: SettingsFactory,
    broker_settings: Settings,
    fresh_topics: Broker,
    tmp_path: Path,
) -> None:
    """Judged again, the old letters become new ones, in new topics: at the very offsets that the old ones had."""
    produce(settings.bootstrap_servers, [letter(b'{"cut off' + bytes([number])) for number in range(NOT_JSON)])
    drain(job_in(settings))
    back_up(settings, tmp_path / "backup")
    empty_topics(fresh_topics, broker_settings)
    elsewhere = settings_factory(bootstrap_servers=settings.bootstrap_servers)
    restore(tmp_path / "backup", elsewhere.root, kafka_lost=True)
    there = local_lake(elsewhere)
    assert redrive(there, EDITS, elsewhere, Selection()) == RedriveReport(rejected=NOT_JSON)
    drain(job_in(elsewhere))
    places = [(row["kafka_offset"], row["attempts"]) for row in table_rows(there, DEAD_LETTER)]
    assert sorted(places) == [(offset, attempts) for offset in range(NOT_JSON) for attempts in (0, 1)]
    assert redrive(there, EDITS, elsewhere, Selection(), dry_run=True) == RedriveReport(rejected=NOT_JSON)
    assert redrive(there, EDITS, elsewhere, Selection()) == RedriveReport(rejected=NOT_JSON)
    assert redrive(there, EDITS, elsewhere, Selection()) == RedriveReport()


def test_the_scheduled_job_redrives_what_waits(
    lake: Lakehouse, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in child_environment(settings).items():
        monkeypatch.setenv(name, value)
    produce(settings.bootstrap_servers, [letter(big(number).encode()) for number in range(OVERSIZED)])
    drain(job_in(settings))
    assert event_ids(lake) == []
    assert every_six_hours.cron_schedule == "0 */6 * * *"
    job = defs().resolve_job_def(every_six_hours.job_name)
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(instance=instance)
        (observation,) = [event for event in result.all_events if event.event_type_value == "ASSET_OBSERVATION"]
    assert observation.asset_key == dg.AssetKey(["bronze", "dead_letter"])
    assert observation.asset_observation_data.asset_observation.metadata["accepted"].value == OVERSIZED
    drain(job_in(settings))
    assert event_ids(lake) == sorted(f"big-{number}" for number in range(OVERSIZED))


def test_an_event_that_came_by_another_way_is_there_once(lake: Lakehouse, settings: Settings) -> None:
    """A rejected event was sent again and accepted: redriving its letter makes a duplicate, not a second row."""
    produce(
        settings.bootstrap_servers, [letter(big(1).encode()), letter(big(2).encode()), event_message("big-1", big(1))]
    )
    drain(job_in(settings))
    done = wikistream("dlq", "redrive", "--reason", "oversized", settings=settings)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "redrove 2: 2 accepted, 0 rejected again (0 of them given up), 0 not followed or canaries",
        "left alone: 0 waiting, 0 given up, 0 damaged on the way",
    ]
    drain(job_in(settings))
    assert event_ids(lake) == ["big-1", "big-2"]
    assert totals(lake) == {"records": 5, "rows": 2, "dead_letters": 2, "duplicates": 1}
    assert_sound(lake)
    assert wikistream("dlq", "redrive", "0:0", settings=settings).returncode == 4
    assert wikistream("dlq", "redrive", "nonsense", settings=settings).returncode == 2


def test_what_was_given_up_is_redriven_on_demand(lake: Lakehouse, settings: Settings) -> None:
    old = letter(big(1).encode())
    assert old.value is not None
    failed_often = json.dumps({**json.loads(old.value), "attempts": 2}).encode()
    produce(settings.bootstrap_servers, [Message(DLQ_EVENTS, failed_often)])
    drain(job_in(settings))
    assert redrive(lake, EDITS, settings, Selection()) == RedriveReport(given_up=1)
    assert redrive(lake, EDITS, settings, Selection(given_up=True)) == RedriveReport(accepted=1)
    assert redrive(lake, EDITS, settings, Selection(given_up=True)) == RedriveReport()


def test_a_letter_whose_original_is_masked_is_left_alone(settings: Settings, lake: Lakehouse) -> None:
    row = {"kafka_topic": DLQ_EVENTS, "kafka_partition": 0, "kafka_offset": 5, "reason": "oversized", "attempts": 0}
    add(lake, DEAD_LETTER, {**row, "event_date": "2026-03-01", "rejected_at": INGESTED_AT})
    assert redrive(lake, EDITS, settings, Selection(), dry_run=True) == RedriveReport()


def test_a_letter_that_the_producer_did_not_write_is_judged_as_it_stands(settings: Settings, lake: Lakehouse) -> None:
    row = {"kafka_topic": DLQ_EVENTS, "kafka_partition": 0, "reason": "not_json", "attempts": 0}
    at = {"event_date": "2026-03-01", "rejected_at": INGESTED_AT}
    for offset, original in enumerate(("no base64", "é")):
        add(lake, DEAD_LETTER, {**row, **at, "kafka_offset": offset, "original": original})
    assert redrive(lake, EDITS, settings, Selection(), dry_run=True) == RedriveReport(rejected=2)
    assert redrive(lake, EDITS, settings, Selection()) == RedriveReport(rejected=2)
    assert redrive(lake, EDITS, settings, Selection()) == RedriveReport()


def test_no_broker_is_one_line_and_no_attempt(lake: Lakehouse, settings_factory: SettingsFactory) -> None:
    done = wikistream("dlq", "redrive", "--dry-run", settings=settings_factory(home=lake_home(lake)))
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: Kafka at 127.0.0.1:")


def lake_home(lake: Lakehouse) -> str:
    return str(lake.catalog.properties["warehouse"]).removeprefix("file://").removesuffix("/warehouse")
