"""``python -m producer`` as a process: its exit codes, its last line, its signals."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from producer.__main__ import main
from producer.eventstreams.generator import Generator
from producer.eventstreams.recording import Synthetic
from producer.eventstreams.server import Behaviour, EventStreamsServer
from producer.exceptions import SourceError
from producer.launch import producer_command, run_producer, source_from
from producer.settings import ProducerSettings, child_environment
from producer.sink import read_cursor
from wikistream_assets.cli.main import app
from wikistream_assets.kafka.broker import Broker
from wikistream_assets_tests.producer.kafka_reader import landed

NOBODY = "127.0.0.1:1"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WIKISTREAM_")}
    return subprocess.run(
        [sys.executable, "-m", "producer", *arguments],
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.local
@pytest.mark.parametrize(
    ("arguments", "environment", "code", "text"),
    [
        (["--mode", "sideways"], {}, 2, "live, replay, synthetic"),
        ([], {"WIKISTREAM_CONTCT": "me"}, 2, "WIKISTREAM_CONTCT"),
        ([], {"WIKISTREAM_MAX_EVENT_BYTES": "-1"}, 2, "WIKISTREAM_MAX_EVENT_BYTES"),
        ([], {"WIKISTREAM_ENV": "prod", "WIKISTREAM_FAILPOINT": "producer.after_commit"}, 2, "WIKISTREAM_FAILPOINT"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    arguments: list[str], environment: dict[str, str], code: int, text: str
) -> None:
    result = run(*arguments, **environment)
    assert result.returncode == code
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert text in result.stderr


@pytest.mark.local
def test_help() -> None:
    assert run("--help").returncode == 0


@pytest.mark.local
def test_an_unreachable_broker_is_exit_code_4(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("producer.sink._START_SECONDS", 0.5)
    monkeypatch.setattr(sys, "argv", ["producer", "--url", "http://127.0.0.1:1/v2/stream/recentchange"])
    monkeypatch.setenv("WIKISTREAM_BOOTSTRAP_SERVERS", NOBODY)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 4
    assert f"Kafka at {NOBODY} failed" in capsys.readouterr().err


@pytest.fixture
def settings(fresh_topics: Broker) -> ProducerSettings:
    return ProducerSettings(bootstrap_servers=fresh_topics.bootstrap_servers, producer_batch_events=500)


@pytest.mark.kafka
@pytest.mark.usefixtures("hang_ups_count")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_commits_what_was_received_and_exits_0(settings: ProducerSettings, number: signal.Signals) -> None:
    generator = Generator(events=4_000)
    source = source_from("synthetic", settings, generator)
    with EventStreamsServer(Synthetic(generator), Behaviour(stall_after=2_750)) as server:
        child = subprocess.Popen(
            producer_command(source, server.url), env=child_environment(settings), stdout=subprocess.PIPE, text=True
        )
        _wait_for(lambda: _received(settings, source.identity) >= 2_750, child)
        child.send_signal(number)
        output, _ = child.communicate(timeout=30)
        assert child.returncode == 0
        report = json.loads(output.splitlines()[-1])
        assert report["outcome"] == "stopped"
        assert report["total"]["received"] == 2_750
        server.behaviour = Behaviour()
    assert run_producer(source, settings)["run"]["received"] == 1_250
    ledger: set[str] = set()
    truth = generator.manifest(ledger=ledger)
    found = landed(settings.bootstrap_servers)
    assert set(found.ids) == ledger
    assert len(found.ids) == truth.unique + truth.redelivered


@pytest.mark.kafka
def test_launch_feeds_a_source_and_returns_the_counters(
    settings: ProducerSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WIKISTREAM_HOME", "the child must not see this")
    generator = Generator(events=1_500)
    path = tmp_path / "some.jsonl"
    path.write_bytes(b"".join(line.data + b"\n" for line in generator.lines()))
    source = source_from(str(path), settings)
    assert (source.mode, source.frames) == ("replay", 1_500)
    report = run_producer(source, settings)
    truth = generator.manifest()
    assert report["outcome"] == "end"
    assert report["total"]["received"] == 1_500
    assert report["total"]["accepted"] == truth.unique + truth.redelivered
    assert run_producer(source, settings)["run"]["received"] == 0


@pytest.mark.local
def test_record_writes_a_capture_of_the_stream(tmp_path: Path) -> None:
    generator = Generator(events=800, malformed=0.01, oversized_bytes=2_000)
    with EventStreamsServer(Synthetic(generator), Behaviour(cut_after=300)) as server:
        out = tmp_path / "x.jsonl.gz"
        result = CliRunner().invoke(app, ["record", str(out), "--events", "700", "--url", server.url])
        whole = CliRunner().invoke(app, ["record", str(tmp_path / "all.sse"), "--url", server.url])
    assert result.exit_code == whole.exit_code == 0, result.output
    assert "700 events" in result.output
    source = source_from(str(out), ProducerSettings())
    assert source.frames == 700
    assert source_from(str(tmp_path / "all.sse"), ProducerSettings()).frames == 800


@pytest.mark.local
def test_record_says_what_is_wrong(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["record", str(tmp_path / "x.txt"), "--url", "http://127.0.0.1:1/"])
    assert isinstance(result.exception, SourceError)
    assert list(tmp_path.iterdir()) == []


def _received(settings: ProducerSettings, identity: str) -> int:
    cursor = read_cursor(settings.bootstrap_servers, identity)
    return cursor.counters.received if cursor else 0


def _wait_for(condition: Callable[[], bool], child: subprocess.Popen[str], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert child.poll() is None, f"the producer ended with {child.returncode}"
        assert time.monotonic() < deadline, "it did not get there in time"
