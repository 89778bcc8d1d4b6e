"""The whole pipeline as ``make dev`` and ``make up`` start it.

The one with the UI in front; in the other everything is killed once, and Bronze ends with exactly what was sent.
"""

import json
import os
import re
import signal
from collections import Counter
from collections.abc import Iterator

import psutil
import pytest

from wikistream_assets.embedded import services, supervisor
from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.tables import DEAD_LETTER, RAW_EVENTS
from wikistream_assets_tests.cli.runner import start, wikistream
from wikistream_assets_tests.conftest import SettingsFactory, free_port, wait_until
from wikistream_assets_tests.metrics.scrape import scrape
from wikistream_assets_tests.running import pid_of, sent, wait_until_read
from wikistream_assets_tests.webserver import answers, graphql

pytestmark = pytest.mark.e2e


@pytest.fixture
def home(settings_factory: SettingsFactory) -> Iterator[Settings]:
    """A home whose pipeline is up on the synthetic source, without cycles; stopped at the end whatever happens."""
    settings = settings_factory(
        synthetic_events_per_second=100.0,
        spark_memory_mb=768,
        producer_backoff_seconds=0.5,
        cycle_first_seconds=86_400,
        metrics_port=free_port(),
        producer_metrics_port=free_port(),
        stream_metrics_port=free_port(),
    )
    started = wikistream("up", settings=settings)
    try:
        assert started.returncode == 0, started.stderr
        yield settings
    finally:
        services.down(settings)


def rows(settings: Settings) -> int:
    newest = local_lake(settings).state(RAW_EVENTS).head()
    return newest.total_records if newest else 0


def wait_for_more_rows(settings: Settings) -> None:
    """Two further commits at least: one may have been under way."""
    for _ in range(2):
        before = rows(settings)
        wait_until(lambda before=before: rows(settings) > before)


def processes_of(settings: Settings) -> list[str]:
    """Found without the code under test: who has the home on its command line, in its environment or as its folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ", "cwd"]):
        told = [*(process.info["cmdline"] or ()), *(process.info["environ"] or {}).values(), process.info["cwd"] or ""]
        if process.pid != os.getpid() and any(str(settings.root) in text for text in told):
            found.append(" ".join(process.info["cmdline"] or ()))
    return found


_BRONZE_AND_SENSORS = """{
  assetNodeOrError(assetKey: {path: ["bronze", "raw_events"]}) {
    ... on AssetNode { assetMaterializations(limit: 1) { runId } }
  }
  sensorsOrError(repositorySelector: {repositoryName: "__repository__", repositoryLocationName: "wikistream"}) {
    ... on Sensors { results { name sensorState { status } } }
  }
}"""


@pytest.mark.long
def test_the_ui_in_front_ends_at_ctrl_c_and_the_pipeline_goes_on(settings_factory: SettingsFactory) -> None:
    settings = settings_factory(synthetic_events_per_second=20.0, spark_memory_mb=768, cycle_first_seconds=86_400)
    address = f"http://127.0.0.1:{settings.dagster_port}"
    dev = start("dev", settings=settings)
    try:
        wait_until(lambda: answers(address) or dev.poll() is not None)
        bronze = wait_until(lambda: graphql(address, _BRONZE_AND_SENSORS)["assetNodeOrError"]["assetMaterializations"])
        assert bronze == [{"runId": ""}], "reported by a sensor, and not by a run"
        sensors = graphql(address, _BRONZE_AND_SENSORS)["sensorsOrError"]["results"]
        at_work = {sensor["name"] for sensor in sensors if sensor["sensorState"]["status"] == "RUNNING"}
        assert {"bronze_freshness", "cycle_loop", "run_alerts", "alert_delivery"} <= at_work

        in_front = psutil.Process(dev.pid)
        for process in (*in_front.children(), in_front):  # a terminal tells all that stand in front
            process.send_signal(signal.SIGINT)
        said, errors = dev.communicate(timeout=60)
        assert dev.returncode == 0, errors
        assert "Traceback" not in errors
        assert said.splitlines()[-1].startswith("the UI has stopped, the pipeline goes on")
        assert not answers(address)
        names = ["broker", "source", "producer", "stream", "code", "worker", "daemon"]
        assert {it.name: it.state for it in services.status(settings)} == dict.fromkeys(names, "RUNNING")
        wait_for_more_rows(settings)
        down = wikistream("down", settings=settings)
        assert (down.returncode, down.stdout) == (0, f"stopped {', '.join(sorted(names))}\n")
        assert processes_of(settings) == []
    finally:
        services.down(settings)
        dev.kill()
        dev.communicate()


@pytest.mark.long
@pytest.mark.alone
def test_the_pipeline_outlives_the_death_of_each_of_its_parts(home: Settings) -> None:
    wait_for_more_rows(home)
    wait_until(lambda: all(service.state == "RUNNING" for service in services.status(home)))
    names = ["broker", "source", "producer", "stream", "code", "worker", "daemon", "metrics"]
    assert [service.name for service in services.status(home)] == names
    before = {service.name: service.pid for service in services.status(home)}
    again = wikistream("up", settings=home)
    assert again.returncode == 0, again.stderr
    assert again.stderr == "", "running twice changes nothing"
    assert {service.name: service.pid for service in services.status(home)} == before

    url = "https://hooks.example.org/changed"
    anew = wikistream("up", settings=home, WIKISTREAM_ALERT_SLACK_WEBHOOK_URL=url)
    assert anew.returncode == 0, anew.stderr
    assert anew.stderr.startswith("a secret has changed")
    assert all(
        psutil.Process(pid_of(home, name)).environ()["WIKISTREAM_ALERT_SLACK_WEBHOOK_URL"] == url for name in names
    )
    assert not {service.pid for service in services.status(home)} & set(before.values())
    wait_for_more_rows(home)

    health = wikistream("health", "--json", settings=home)
    told = json.loads(health.stdout)
    assert (health.returncode, told["problems"], told["source"]) == (0, [], "synthetic"), health.stdout

    assert scrape(home.metrics_port)['wikistream_bronze_rows_total{stream="edits"}'] > 0
    assert scrape(home.producer_metrics_port)["wikistream_producer_events_accepted_total"] > 0
    assert scrape(home.stream_metrics_port)["wikistream_stream_rows_total"] > 0

    sockets = [socket for it in supervisor.marked_processes(home.root) for socket in it.net_connections("inet")]
    listening = {socket.laddr.ip for socket in sockets if socket.status == psutil.CONN_LISTEN}
    assert {"127.0.0.1"} <= listening <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}

    for name in ("producer", "source", "stream", "broker", "code", "worker", "daemon", "metrics"):
        killed = pid_of(home, name)
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda name=name, killed=killed: pid_of(home, name) != killed)
        wait_for_more_rows(home)
    wait_until(lambda: all(service.state == "RUNNING" for service in services.status(home)))

    # The source goes on for ever: end the reading, let Bronze read the rest, and compare.
    supervisor.call(home, "stopProcess", "producer")
    silent = wikistream("status", settings=home)
    assert silent.returncode == 3
    assert "producer  STOPPED" in silent.stdout
    wait_until_read(home)
    expected, malformed = sent(home)
    lake = local_lake(home)
    found = lake.table(RAW_EVENTS).scan(selected_fields=("event_id",)).to_arrow()["event_id"].to_pylist()
    assert Counter(found) == expected
    letters = lake.state(DEAD_LETTER).head()
    assert letters is not None
    assert letters.total_records == malformed

    assert services.down(home) == ["broker", "code", "daemon", "metrics", "source", "stream", "worker"]
    log = (home.root / "logs" / "supervisord.log").read_text()
    ended = re.findall(r"stopped: (\w+) ", log)[-7:]
    assert ended == ["metrics", "daemon", "worker", "code", "stream", "source", "broker"], (
        "nobody is missed by who is still there"
    )
    assert processes_of(home) == []
