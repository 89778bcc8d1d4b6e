"""Case 25: the stream's schema drifts under the running pipeline. Bronze keeps what came, the gate turns red, nothing is lost."""

import base64
import json

import pytest
from pyspark.sql import SparkSession

from wikistream_assets.engine.ingest import drain
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.state import AUDITED_TAG
from wikistream_assets.lake.table_hash import table_hashes
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS, DEAD_LETTER, GOLD_TABLES, RAW_EVENTS
from wikistream_assets_tests.conftest import SettingsFactory, empty_topics
from wikistream_assets_tests.contexts import job_in
from wikistream_assets_tests.engine.bronze_lakes import assert_sound, table_rows
from wikistream_assets_tests.engine.gate_lakes import GateLake, blocking
from wikistream_assets_tests.faults.conftest import Account
from wikistream_assets_tests.faults.test_every_check import accept
from wikistream_assets_tests.kafka_records import judged, produce
from wikistream_assets_tests.producer.samples import ID, line

pytestmark = [pytest.mark.faults, pytest.mark.spark, pytest.mark.kafka]


@pytest.fixture
def settings(settings_factory: SettingsFactory, fresh_topics: Broker) -> Settings:
    return settings_factory(bootstrap_servers=fresh_topics.bootstrap_servers)


def drifting() -> dict[str, str]:
    """A thousand events by id: as they should be, then with a field more, without one, with one of another type."""
    kinds = (
        *(line() for _ in range(600)),
        *(line(something={"new": [1]}) for _ in range(100)),
        *(line("user") for _ in range(200)),
        *(line(bot="yes") for _ in range(100)),
    )
    return {f"id-{number:04d}": text.replace(ID, f"id-{number:04d}") for number, text in enumerate(kinds)}


def test_25_fields_added_removed_and_retyped(
    lake: Lakehouse,
    settings: Settings,
    account: Account,
    settings_factory: SettingsFactory,
    fresh_topics: Broker,
    broker_settings: Settings,
) -> None:
    events = drifting()
    produce(settings.bootstrap_servers, judged(events.values()))
    drain(job_in(settings))
    rows = [(row["event_id"], row["payload"]) for row in table_rows(lake, RAW_EVENTS, "event_id", "payload")]
    letters = [base64.b64decode(row["original"]).decode() for row in table_rows(lake, DEAD_LETTER, "original")]
    # A list: in a dictionary, what came twice would be there once.
    kept = rows + [(json.loads(text)["meta"]["id"], text) for text in letters]
    found = [event_id for event_id, _ in kept]
    account.settle("25", "a field added, removed, retyped in the stream", sent=list(events), found=found, tries=3)
    assert dict(kept) == events  # every byte of them
    assert len(letters) == 100
    before = lake.state(RAW_EVENTS).head(AUDITED_TAG)
    gates = GateLake(settings)
    report = gates.bronze_gate()
    assert any("user" in name for name in blocking(report)), blocking(report)
    assert lake.state(RAW_EVENTS).head(AUDITED_TAG) == before
    assert_sound(lake)

    # let through, Silver and Gold are those of a stream that had nothing but the events that are whole, and did not drift
    for check in blocking(report):
        accept(gates, RAW_EVENTS.identifier, check)
    assert all(report.passed for report in gates.cycle())
    whole, without_user = list(events)[:700], list(events)[700:900]
    quarantined = gates.rows("select event_id from quarantine.cleaned_events order by 1")
    assert quarantined == [(event_id,) for event_id in without_user]
    empty_topics(fresh_topics, broker_settings)
    calm = GateLake(settings_factory(bootstrap_servers=settings.bootstrap_servers))
    produce(settings.bootstrap_servers, judged(line().replace(ID, event_id) for event_id in whole))
    drain(calm.ctx)
    assert all(report.passed for report in calm.cycle())
    drifted, steady = table_hashes(lake), table_hashes(calm.lake)
    for spec in (CLEANED_EVENTS, *GOLD_TABLES):
        assert drifted[spec.identifier] == steady[spec.identifier], spec.identifier


def test_25_control_a_reader_that_holds_its_schema(spark: SparkSession, account: Account) -> None:
    events = drifting()
    typed = spark.read.schema("meta STRUCT<id: STRING>, user STRING, bot BOOLEAN").option("mode", "DROPMALFORMED")
    rows = typed.json(spark.sparkContext.parallelize(list(events.values()))).select("meta.id", "user", "bot").collect()
    account.settle(
        "25",
        "a reader that drops what its schema does not fit",
        sent=list(events),
        found=[r.id for r in rows],
        control=True,
    )
