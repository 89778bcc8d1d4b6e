"""up, down, status, doctor and topics as a user types them."""

import json

import pytest
from confluent_kafka import Producer

from wikistream_assets.kafka.broker import Broker
from wikistream_assets.settings import Settings
from wikistream_assets_tests.cli.runner import wikistream

pytestmark = pytest.mark.kafka


def test_status_and_doctor_of_a_machine_where_nothing_runs(settings: Settings) -> None:
    status = wikistream("status", "--json", settings=settings)
    assert status.returncode == 3
    (service,) = json.loads(status.stdout)
    assert (service["name"], service["state"], service["port"]) == ("broker", "STOPPED", settings.kafka_port)
    down = wikistream("down", settings=settings)
    assert (down.returncode, down.stdout) == (0, "nothing was running\n")
    doctor = wikistream("doctor", settings=settings)
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    assert all(line.startswith("ok ") for line in doctor.stdout.splitlines())


def test_the_doctor_ends_with_1_when_something_is_wrong(
    settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    doctor = wikistream("doctor", settings=settings, JAVA_HOME=str(tmp_path_factory.mktemp("java")))
    assert doctor.returncode == 1
    assert [line.split()[1] for line in doctor.stdout.splitlines() if line.startswith("WRONG")] == [
        "java",
        "spark",
        "broker",
    ]


def test_status_of_a_running_broker(broker: Broker, broker_settings: Settings) -> None:
    status = wikistream("status", settings=broker_settings)
    assert status.returncode == 0, status.stdout
    assert "RUNNING" in status.stdout
    health = wikistream("health", settings=broker_settings)
    assert health.returncode == 3
    assert "WRONG     the pipeline was never started: 'make up' starts it" in health.stdout


def test_topics(fresh_topics: Broker, broker_settings: Settings) -> None:
    producer = Producer({"bootstrap.servers": fresh_topics.bootstrap_servers, "log_level": 0})
    for number in range(3):
        producer.produce("dlq-events", key="ключ", value=f"{number}\u202e\x9b" if number == 2 else f"{number}")
    assert producer.flush(20) == 0
    listed = json.loads(wikistream("topics", "list", "--json", settings=broker_settings).stdout)
    assert listed["dlq-events"] == {"partitions": 1, "offsets": 3}
    assert listed["raw-events"] == {"partitions": 3, "offsets": 0}
    offsets = json.loads(wikistream("topics", "offsets", "dlq-events", "--json", settings=broker_settings).stdout)
    assert offsets == {"0": {"low": 0, "high": 3}}
    tail = wikistream("topics", "tail", "dlq-events", "-n", "2", settings=broker_settings).stdout.splitlines()
    records = [json.loads(line) for line in tail]
    assert [(record["offset"], record["key"], record["value"]) for record in records] == [
        (1, "ключ", "1"),
        (2, "ключ", "2\u202e\x9b"),
    ]
    assert all(line.isprintable() for line in tail)
    assert wikistream("topics", "sync", settings=broker_settings).stdout == "all topics are as configured\n"


def test_an_unreachable_broker_is_one_line(settings: Settings) -> None:
    listed = wikistream("topics", "list", settings=settings)
    assert listed.returncode == 1
    assert listed.stdout == ""
    assert len(listed.stderr.strip().splitlines()) == 1
    assert f"127.0.0.1:{settings.kafka_port} does not answer" in listed.stderr
