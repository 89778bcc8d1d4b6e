"""The rows: which programs there are for which source, and what they are told."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from producer.eventstreams.generator import Generator
from wikistream_assets.embedded import supervisor
from wikistream_assets.embedded.home import open_home
from wikistream_assets.embedded.programs import Program, programs, ui_environment
from wikistream_assets.embedded.source import choose_source
from wikistream_assets.settings import Settings
from wikistream_assets_tests.conftest import SettingsFactory, free_port
from wikistream_assets_tests.machine.test_variables import HOSTILE

pytestmark = pytest.mark.unit


def rows(settings: Settings, source: str) -> dict[str, Program]:
    open_home(settings)
    return {program.name: program for program in programs(settings, choose_source(settings, source))}


def test_a_home_without_a_source_has_a_broker(settings: Settings) -> None:
    assert [program.name for program in programs(settings, None)] == ["broker"]


def test_the_synthetic_source_is_served_and_read_for_ever(settings: Settings) -> None:
    made = rows(settings, "synthetic")
    assert list(made) == ["broker", "source", "producer", "stream", "code", "worker", "daemon"]
    for number, program in enumerate(made.values()):
        assert set(program.needs) <= set(list(made)[:number]), "nobody needs one that is started later"
    assert "--continuous" in made["source"].command()
    assert f"http://127.0.0.1:{settings.source_port}/v2/stream/recentchange" in made["producer"].command()
    assert not any(program.may_end for program in made.values())
    ports = [port for program in made.values() for port in program.ports.values()]
    assert len(set(ports)) == len(ports) == 4


def test_the_lakes_metrics_are_served_where_a_port_is_set(settings_factory: SettingsFactory) -> None:
    settings = settings_factory(metrics_port=free_port(), contact="me@example.org")
    made = rows(settings, "live")
    assert list(made)[-1] == "metrics"
    assert made["metrics"].port == settings.metrics_port
    assert made["metrics"].environment["WIKISTREAM_METRICS_PORT"] == str(settings.metrics_port)


def test_the_live_stream_needs_no_server(settings_factory: SettingsFactory) -> None:
    settings = settings_factory(contact="me@example.org")
    made = rows(settings, "live")
    assert "source" not in made
    assert settings.stream_url in made["producer"].command()
    assert made["producer"].needs == ("broker",)


def test_a_capture_is_served_as_recorded_and_may_end(settings: Settings, tmp_path: Path) -> None:
    capture = tmp_path / "some.jsonl"
    capture.write_bytes(b"\n".join(line.data for line in Generator(events=20, malformed=0).lines()) + b"\n")
    made = rows(settings, str(capture))
    served = made["source"].command()
    assert served[served.index("--speed") + 1] == "1"
    assert "--until-end" in made["producer"].command()
    assert [program.name for program in made.values() if program.may_end] == ["producer"]


def test_a_program_gets_the_settings_it_knows_and_no_secrets(
    settings_factory: SettingsFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WIKISTREAM_DOMAINS", "stale.example.org")
    settings = settings_factory(
        domains="de.wikipedia.org, en.wikipedia.org",
        bronze_trigger_seconds=2.5,
        alert_slack_webhook_url=SecretStr("https://hooks.example.org/secret"),
    )
    made = rows(settings, "synthetic")
    stream, producer = made["stream"].environment, made["producer"].environment
    assert stream["WIKISTREAM_HOME"] == str(settings.root)
    assert stream["WIKISTREAM_BRONZE_TRIGGER_SECONDS"] == "2.5"
    assert stream["WIKISTREAM_DOMAINS"] == producer["WIKISTREAM_DOMAINS"] == "de.wikipedia.org, en.wikipedia.org"
    assert set(producer) == {"WIKISTREAM_DOMAINS", "WIKISTREAM_BOOTSTRAP_SERVERS", supervisor.VERSION_MARK}
    assert made["daemon"].environment["DAGSTER_HOME"] == str(settings.dagster_home)
    written = [text for program in made.values() for text in (*program.environment.values(), *program.files.values())]
    assert not any("secret" in text for text in written)
    inherited = supervisor.inherited(settings)
    assert inherited["WIKISTREAM_ALERT_SLACK_WEBHOOK_URL"] == "https://hooks.example.org/secret"
    assert "WIKISTREAM_DOMAINS" not in inherited


def test_mallocs_arenas_are_few_unless_the_caller_says_otherwise(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    assert supervisor.inherited(settings)["MALLOC_ARENA_MAX"] == "2"
    monkeypatch.setenv("MALLOC_ARENA_MAX", "8")
    assert supervisor.inherited(settings)["MALLOC_ARENA_MAX"] == "8"


def test_what_was_meant_for_others_does_not_reach_the_programs(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    assert HOSTILE.keys() & supervisor.inherited(settings).keys() == set()
    assert HOSTILE.keys() & ui_environment(settings).keys() == {"DAGSTER_HOME"}
    assert ui_environment(settings)["DAGSTER_HOME"] == str(settings.dagster_home)


def test_what_is_given_wins_over_the_profile_in_the_programs_too(settings_factory: SettingsFactory) -> None:
    given = settings_factory(
        profile="source", bronze_trigger_seconds=1, cycle_after_failed_gate="continue", contact="me@example.org"
    )
    made = rows(given, "live")
    for name in ("stream", "code", "worker", "daemon"):
        environment = made[name].environment
        assert environment["WIKISTREAM_PROFILE"] == "source"
        assert environment["WIKISTREAM_BRONZE_TRIGGER_SECONDS"] == "1.0"
        assert environment["WIKISTREAM_CYCLE_AFTER_FAILED_GATE"] == "continue"
        assert environment["WIKISTREAM_CYCLE_PAUSE_SECONDS"] == "600.0"
