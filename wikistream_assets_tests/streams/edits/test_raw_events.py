"""What a Kafka record becomes in Bronze: the columns of a good one, the reason of a bad one."""

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from producer.contract import Accepted, Contract, Rejected
from producer.envelope import Envelope
from producer.times import EARLIEST_EVENT, MAX_AHEAD
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.dead_letter import dead_letters
from wikistream_assets.streams.edits.raw_events import parse, stamp
from wikistream_assets.streams.edits.tables import DEAD_LETTER, RAW_EVENTS
from wikistream_assets.transforms.kafka import at_places, first_places
from wikistream_assets_tests import oracle
from wikistream_assets_tests.kafka_records import INGESTED_AT, Message, envelope, judged
from wikistream_assets_tests.producer.notations import ABSENT, DATE_TIMES, SECONDS
from wikistream_assets_tests.producer.samples import ID, event, line
from wikistream_assets_tests.streams.edits.frames import PROCESSED_AT, collected, ddl

pytestmark = pytest.mark.spark

KAFKA_TIME = datetime(2026, 3, 1, 23, 59, 59, 500_000, tzinfo=UTC)
KAFKA_DDL = "value BINARY, topic STRING, partition INT, offset LONG, timestamp TIMESTAMP"
GOOD = line()


def kafka_frame(spark: SparkSession, messages: Sequence[Message], partition: int = 0) -> DataFrame:
    rows = [(m.value, m.topic, partition, offset, KAFKA_TIME) for offset, m in enumerate(messages)]
    return spark.createDataFrame(rows, KAFKA_DDL)


def raw(value: bytes | None) -> Message:
    return Message("raw-events", value)


def wrapped(data: str, mode: str = "replay") -> Message:
    return raw(Envelope("local", "s", mode, now=lambda: INGESTED_AT).event_value("key", data))  # type: ignore[arg-type]


def read(records: DataFrame) -> DataFrame:
    return stamp(parse(records), PROCESSED_AT)


def parsed_rows(spark: SparkSession, messages: Sequence[Message]) -> list[dict[str, Any]]:
    return sorted(collected(read(kafka_frame(spark, messages))), key=lambda r: r["kafka_offset"])


VARIANTS = {
    "2026": line(),
    "numeric type": line(type=142),
    "numeric type as text": line(type="142"),
    "old log event without rc_id": line("id", "length", "revision", "namespace", type="log"),
    "new page without length.old": line(type="new", length={"new": 77}, revision={"new": 9}),
    "new page with null length.old": line(
        type="new", length={"old": None, "new": 77}, revision={"old": None, "new": 9}
    ),
    "edit without length.old": line(length={"new": 77}),
    "shrunk page": line(length={"old": 90_000, "new": 3}),
    "no user, title, bot": line("user", "title", "bot", "comment", "wiki", "server_name", "title_url"),
    "time from meta.dt with ms": line("timestamp", meta_dt="2025-08-29T23:59:59.987Z"),
    "time from meta.dt without ms": line("timestamp", meta_dt="2021-08-27T00:00:00Z"),
    "time from meta.dt with offset": line("timestamp", meta_dt="2021-08-27T01:30:00+02:00"),
    "no meta.dt": line("meta_dt"),
    "no $schema": line("$schema"),
    "hostile text": line(title='Tea "\\" \u2028 \u0000 \U0001f375 عربي', comment="line\nbreak\ttab", user="O'Brien"),
    "escaped JSON": json.dumps(event(title="Café", comment="</script>"), ensure_ascii=True),
    "spaces outside": f"  {GOOD} ",
}


def test_good_events_have_the_columns_that_follow_from_them(spark: SparkSession) -> None:
    lines = [text.replace(ID, f"id-{number}") for number, text in enumerate(VARIANTS.values())]
    rows = parsed_rows(spark, [wrapped(text) for text in lines])
    expected = oracle.bronze_rows(lines, domains=None)
    assert len(expected) == len(VARIANTS)
    oracle.assert_same_rows([{name: row[name] for name in expected[0]} for row in rows], expected, key=["event_id"])
    for offset, row in enumerate(rows):
        assert (row["kafka_topic"], row["kafka_partition"], row["kafka_offset"]) == ("raw-events", 0, offset)
        assert (row["kafka_timestamp"], row["bronze_processed_at"]) == (KAFKA_TIME, PROCESSED_AT)
        assert (row["producer_ingested_at"], row["source_mode"]) == (INGESTED_AT, "replay")
        assert [row[name] for name in ("reason", "detail", "original", "attempts", "rejected_at")] == [None] * 5


def test_a_field_of_another_type_is_null_and_the_row_stays(spark: SparkSession) -> None:
    changed = {"length": {"old": "many", "new": 5}, "bot": "yes", "namespace": 2**40, "id": 2**70}
    (row,) = parsed_rows(spark, [wrapped(line(**changed))])
    assert row["reason"] is None
    assert [row[name] for name in ("length_old", "length_new", "is_bot", "namespace", "rc_id")] == [
        None,
        5,
        None,
        None,
        None,
    ]
    assert json.loads(row["payload"])["bot"] == "yes"


@pytest.mark.parametrize(
    "hostile",
    [
        line(something=None).replace(
            "null", "[" * 1_010 + "]" * 1_010, 1
        ),  # the producer takes 1,024 levels, Spark 1,000
        line(something=None).replace("null", "9" * 5_000, 1),  # a number longer than Spark reads
        line(comment="'; DROP TABLE x; --", title="=HYPERLINK(0)", user="<script>alert(1)</script>"),
    ],
    ids=["deep", "long number", "other languages"],
)
def test_hostile_json_is_a_row_or_a_dead_letter_and_never_a_crash(spark: SparkSession, hostile: str) -> None:
    assert isinstance(Contract(None, 1_000_000).judge(hostile), Accepted | Rejected)
    (row,) = parsed_rows(spark, [wrapped(hostile)])
    if row["reason"] is None:
        assert row["payload"] == hostile
    else:
        assert json.loads(base64.b64decode(row["original"]))["data"] == hostile


BAD_ENVELOPES: dict[str, bytes | None] = {
    "tombstone": None,
    "empty": b"",
    "not JSON": b"\x00\xff\xfe",
    "array": b"[1]",
    "no data": b'{"id":"x"}',
    "data is null": b'{"id":"x","data":null}',
    "broken off": wrapped(GOOD).value[:-10],  # type: ignore[index]
    "a bare event": GOOD.encode(),
}
BAD_DATA = {
    "not_json": ["", "nonsense", GOOD[:-1], GOOD[: GOOD.index('"old"') + 6], GOOD[:40]],
    "not_object": ["null", "5", '"text"', f"[{GOOD}]"],
    "missing_id": ["{}", line("meta"), line("meta_id"), line(meta_id=None), line(meta_id=""), line(meta=5)],
    "missing_domain": [line("meta_domain"), line(meta_domain=None), line(meta_domain="")],
    "missing_type": [line("type"), line(type=None), line(type="")],
    "missing_time": [line("timestamp", "meta_dt"), line(timestamp=None, meta_dt=None)],
    "invalid_time": [
        line(timestamp=0),
        line(timestamp=-5),
        line(timestamp=979_516_799),
        line(timestamp=10**15),
        line(timestamp=2**62),
        *(line("timestamp", meta_dt=text) for text in ("yesterday", "2021", "12:30", "1999-12-31T00:00:00Z")),
    ],
}


def _timed(dt: object, seconds: object) -> str:
    """An event with these two times; ``ABSENT`` leaves one out."""
    left_out = [name for name, value in (("meta_dt", dt), ("timestamp", seconds)) if value is ABSENT]
    given = {name: value for name, value in (("meta_dt", dt), ("timestamp", seconds)) if value is not ABSENT}
    return line(*left_out, **given)


def _judged_times() -> dict[str, datetime | None]:
    """Each notation alone and beside a good other one: the event, and its time; None if it is none."""
    good = datetime(2026, 3, 1, 12, tzinfo=UTC)
    cases: dict[str, datetime | None] = {}
    for notation, moment in DATE_TIMES.items():
        cases[_timed(notation, ABSENT)] = moment
        cases[_timed(notation, 1_772_366_400)] = good if moment else None
    for seconds, moment in SECONDS:
        cases[_timed(ABSENT, seconds)] = moment
        cases[_timed("2026-03-01T11:59:00Z", seconds)] = moment
    return {
        text: moment if moment and EARLIEST_EVENT <= moment <= KAFKA_TIME + MAX_AHEAD else None
        for text, moment in cases.items()
    }


def test_producer_and_bronze_read_the_same_language_of_times(spark: SparkSession) -> None:
    cases = _judged_times()
    contract = Contract(None, 1_000_000, now=lambda: KAFKA_TIME)
    at = sf.when(sf.col("reason").isNull(), sf.col("event_timestamp")).alias("at")  # Python knows no year 0
    rows = collected(read(kafka_frame(spark, [wrapped(text) for text in cases])).select("kafka_offset", "reason", at))
    rows.sort(key=lambda row: row["kafka_offset"])
    for (text, moment), row in zip(cases.items(), rows, strict=True):
        verdict = contract.judge(text)
        assert isinstance(verdict, Accepted) == (moment is not None), (text, verdict)
        assert (row["reason"] is None) == (moment is not None), (text, row["reason"])
        assert row["at"] == moment, (text, row["at"])
    assert sum(moment is not None for moment in cases.values()) > 30


def test_what_lies_a_day_ahead_of_its_record_is_no_event(spark: SparkSession) -> None:
    """Whoever wrote it: one such event would open days to come and make Gold take today for final."""
    bound = int(KAFKA_TIME.timestamp()) + 86_400
    rows = parsed_rows(
        spark, [wrapped(line(timestamp=seconds)) for seconds in (bound, bound + 1, 4_070_908_800, 2_208_988_800)]
    )
    assert [row["reason"] for row in rows] == [None, *["future_time"] * 3]


def test_what_is_no_event_has_its_reason_and_its_bytes(spark: SparkSession) -> None:
    cases = [("unreadable_envelope", raw(value)) for value in BAD_ENVELOPES.values()]
    cases += [(reason, wrapped(data)) for reason, texts in BAD_DATA.items() for data in texts]
    messages = [message for _, message in cases]
    letters = collected(dead_letters(read(kafka_frame(spark, messages))))
    letters.sort(key=lambda letter: letter["kafka_offset"])
    assert [(letter["reason"], letter["kafka_offset"]) for letter in letters] == [
        (reason, offset) for offset, (reason, _) in enumerate(cases)
    ]
    for letter, message in zip(letters, messages, strict=True):
        expected = None if message.value is None else base64.b64encode(message.value).decode()
        assert letter["original"] == expected
        assert letter["kafka_topic"] == "raw-events"
        assert letter["detail"]
        assert (letter["attempts"], letter["rejected_at"]) == (0, PROCESSED_AT)
        assert (letter["event_date"], letter["bronze_processed_at"]) == ("2026-02-03", PROCESSED_AT)


def test_an_event_of_the_first_day_is_one(spark: SparkSession) -> None:
    (row,) = parsed_rows(spark, [wrapped(line(timestamp=979_516_800))])
    assert (row["reason"], row["event_date"], row["event_hour"]) == (None, "2001-01-15", 0)


def test_producers_dead_letters_keep_its_words(spark: SparkSession) -> None:
    lines = [b"{broken", line("meta_id").encode(), b"\xff\xfe"]
    messages = list(judged(lines))
    assert [message.topic for message in messages] == ["dlq-events"] * 3
    letters = sorted(
        collected(dead_letters(read(kafka_frame(spark, messages, partition=2)))),
        key=lambda letter: letter["kafka_offset"],
    )
    for offset, (letter, message, original) in enumerate(zip(letters, messages, lines, strict=True)):
        said = orjson.loads(message.value or b"")
        assert letter == {
            "kafka_topic": "dlq-events",
            "kafka_partition": 2,
            "kafka_offset": offset,
            "kafka_timestamp": KAFKA_TIME,
            "reason": said["reason"],
            "detail": said["detail"],
            "original": base64.b64encode(original).decode(),
            "attempts": 0,
            "rejected_at": INGESTED_AT,
            "bronze_processed_at": PROCESSED_AT,
            "event_date": "2026-03-01",
            "source_mode": "replay",
        }


def test_a_dead_letter_that_cannot_be_read_is_filed_under_kafkas_day(spark: SparkSession) -> None:
    messages = [Message("dlq-events", b"?"), Message("dlq-events", b'{"reason":"not_json","attempts":2}')]
    letters = sorted(
        collected(dead_letters(read(kafka_frame(spark, messages)))),
        key=lambda letter: letter["kafka_offset"],
    )
    assert [letter["reason"] for letter in letters] == ["unreadable_envelope", "not_json"]
    assert [letter["event_date"] for letter in letters] == ["2026-03-01"] * 2
    assert [letter["rejected_at"] for letter in letters] == [None, None]
    assert [letter["attempts"] for letter in letters] == [0, 2]


def test_columns_are_the_contracts(spark: SparkSession) -> None:
    parsed = read(kafka_frame(spark, [wrapped(GOOD)]))
    known = spark.createDataFrame([], "event_id STRING")
    for rows, spec in (
        (at_places(parsed, first_places(parsed, known), RAW_EVENTS.column_names), RAW_EVENTS),
        (dead_letters(parsed), DEAD_LETTER),
    ):
        expected = spark.createDataFrame([], ddl(spec)).schema
        assert [(field.name, field.dataType) for field in rows.schema] == [
            (field.name, field.dataType) for field in expected
        ]


def test_the_first_record_of_an_event_wins_and_known_events_are_left_out(spark: SparkSession) -> None:
    partitions = {0: ["a", "b", "a", "d"], 1: ["c", "a", "c"], 2: ["b", "e", "f"]}
    frames = [
        kafka_frame(spark, [wrapped(GOOD.replace(ID, name)) for name in names], partition)
        for partition, names in partitions.items()
    ]
    records = frames[2].union(frames[1]).union(frames[0]).union(kafka_frame(spark, [raw(b"?")], partition=3))
    parsed = read(records)
    known = spark.createDataFrame([("d",), ("f",), ("z",)], "event_id STRING")
    kept = collected(at_places(parsed, first_places(parsed, known), RAW_EVENTS.column_names))
    assert {(row["event_id"], row["kafka_partition"], row["kafka_offset"]) for row in kept} == {
        ("a", 0, 0),
        ("b", 0, 1),
        ("c", 1, 0),
        ("e", 2, 1),
    }
    assert len(kept) == 4


@pytest.mark.real_data
def test_a_real_capture_is_read_like_plain_python_reads_it(spark: SparkSession, settings: Settings) -> None:
    capture = settings.data / "events" / "recentchange_2021-08-27_1950_sse.jsonl.gz"
    if not capture.exists():
        pytest.skip(f"no public captures at {settings.data} (WIKISTREAM_DATA)")
    lines = oracle.read_capture(capture)
    messages = list(judged(lines))
    assert len(messages) == 1950
    parsed = read(kafka_frame(spark, messages))
    known = spark.createDataFrame([], "event_id STRING")
    rows = collected(at_places(parsed, first_places(parsed, known), RAW_EVENTS.column_names))
    expected = oracle.bronze_rows(lines, domains=None)
    oracle.assert_same_rows([{name: row[name] for name in expected[0]} for row in rows], expected, key=["event_id"])
    assert sum(row["event_type"] == "142" for row in rows) == 2
    assert envelope().event_value("x", lines[0])  # the format under test is the producer's own
