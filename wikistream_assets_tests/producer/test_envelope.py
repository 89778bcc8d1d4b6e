import base64
import hashlib
import json
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest

import producer
from producer.contract import Reason, Rejected
from producer.envelope import EVENT_DDL, MAX_ORIGINAL_BYTES, REJECTED_DDL, Envelope
from producer.topics import MAX_MESSAGE_BYTES
from wikistream_assets_tests.producer.samples import ID, line

pytestmark = pytest.mark.unit


@pytest.fixture
def envelope() -> Envelope:
    return Envelope("staging", "sha256:ab", "replay", now=lambda: datetime(2026, 3, 1, 12, 0, 5, 7_999, tzinfo=UTC))


@pytest.mark.parametrize(
    "text",
    [
        line(),
        line().replace(": ", ":  "),
        '{"a":"\\u0000\\u00e9\\/\\n","b":"é日本語😀\u2028\u200e\u0007"}',
        '{"big":12345678901234567890.00100,"e":1E+2}',
    ],
)
def test_data_is_the_line_byte_for_byte(envelope: Envelope, text: str) -> None:
    value = json.loads(envelope.event_value(ID, text))
    assert value["data"].encode() == text.encode()
    assert value == {
        "id": ID,
        "data": text,
        "_processing": {
            "ingested_at": "2026-03-01T12:00:05.007Z",
            "producer_version": producer.__version__,
            "environment": "staging",
            "source_mode": "replay",
            "attempts": 0,
        },
    }


def test_rejected_keeps_the_original_bytes(envelope: Envelope) -> None:
    value = json.loads(envelope.rejected_value(Rejected(Reason.NOT_JSON, "cut off"), b'{"a":\xff\x00'))
    assert base64.b64decode(value.pop("original"), validate=True) == b'{"a":\xff\x00'
    assert value == {
        "reason": "not_json",
        "detail": "cut off",
        "rejected_at": "2026-03-01T12:00:05.007Z",
        "attempts": 0,
        "source_mode": "replay",
        "source": "sha256:ab",
    }


def test_a_monster_is_cut_and_says_so(envelope: Envelope) -> None:
    monster = b"x" * (MAX_ORIGINAL_BYTES + 1)
    value = envelope.rejected_value(Rejected(Reason.OVERSIZED, "too big"), monster)
    assert len(value) < MAX_MESSAGE_BYTES
    document = json.loads(value)
    assert base64.b64decode(document["original"]) == monster[:-1]
    assert hashlib.sha256(monster).hexdigest() in document["detail"]


def test_ddl_names_the_fields_in_their_order(envelope: Envelope) -> None:
    written = json.loads(envelope.event_value(ID, line()))
    assert [part.split()[0] for part in EVENT_DDL.split(" STRUCT<")[0].split(", ")] == list(written)
    assert [part.split(":")[0] for part in EVENT_DDL.split("STRUCT<")[1].rstrip(">").split(", ")] == list(
        written["_processing"]
    )
    rejected = json.loads(envelope.rejected_value(Rejected(Reason.NOT_JSON, "x"), b""))
    assert [part.split()[0] for part in REJECTED_DDL.split(", ")] == list(rejected)


def test_version_is_that_of_the_distribution() -> None:
    pyproject = tomllib.loads((Path(producer.__file__).parents[1] / "pyproject.toml").read_text())
    assert producer.__version__ == pyproject["project"]["version"]
