"""What ``SOURCE`` may be: every spelling is understood, or told in one line before anything starts."""

import subprocess
import sys
from pathlib import Path

import pytest

from producer.exceptions import ProducerConfigError, ProducerError
from producer.launch import source_from
from producer.settings import ProducerSettings
from wikistream_assets_tests.producer.samples import line

pytestmark = pytest.mark.local


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("Live", "did you mean live?"),
        ("LIVE", "did you mean live?"),
        ("Synthetic", "did you mean synthetic?"),
        ("syntetic", "did you mean synthetic?"),
        ("", "is empty"),
        ("  ", "is empty"),
        ("-", "pipe"),
        ("https://stream.wikimedia.org/v2/stream/recentchange", "SOURCE=live and WIKISTREAM_STREAM_URL=https://stream"),
        ("HTTP://127.0.0.1:1/x", "WIKISTREAM_STREAM_URL"),
        ("s3://bucket/x.jsonl", "copy the capture"),
        ("file:///tmp/x.jsonl", "give its path"),
        ("~nobody-of-this-name/x.jsonl", "there is no folder"),
        ("a\0b", "is no path"),
    ],
)
def test_what_is_no_source_is_one_line(spec: str, words: str) -> None:
    with pytest.raises(ProducerError) as caught:
        source_from(spec, ProducerSettings(contact="me@example.org"))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_of_that_name_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Live").write_text(line())
    assert source_from("Live", ProducerSettings()).mode == "replay"


def test_live_asks_who_reads_and_the_others_do_not() -> None:
    with pytest.raises(ProducerConfigError, match="WIKISTREAM_CONTACT"):
        source_from("live", ProducerSettings(stream_url="http://127.0.0.1:1/x"))
    assert source_from("live", ProducerSettings(contact="me@example.org")).mode == "live"
    assert source_from("synthetic", ProducerSettings()).mode == "synthetic"


def test_a_capture_that_has_changed_is_not_served_as_the_one_that_was_chosen(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(line())
    source = source_from(str(path), ProducerSettings())
    path.write_text(line(meta_id="another"))
    done = subprocess.run(
        [sys.executable, "-m", "producer.eventstreams", *source.serve],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3
    assert "has changed since it was chosen" in done.stderr.splitlines()[-1]
