"""The doctor finds each fault, names the fix, and changes nothing."""

import socket
from pathlib import Path

import pytest

from wikistream_assets.embedded.doctor import Finding, examine, try_out
from wikistream_assets.embedded.home import open_home
from wikistream_assets.settings import Settings
from wikistream_assets_tests.conftest import SettingsFactory
from wikistream_assets_tests.machine.test_java import fake_java

pytestmark = pytest.mark.local


def by_name(settings: Settings) -> dict[str, Finding]:
    return {finding.name: finding for finding in examine(settings)}


def wrong(settings: Settings) -> dict[str, str]:
    findings = examine(settings)
    assert all("\n" not in finding.text for finding in findings)
    return {finding.name: finding.text for finding in findings if not finding.ok}


def test_a_machine_in_order(settings: Settings) -> None:
    assert wrong(settings) == {}
    assert not settings.root.exists()
    findings = by_name(settings)
    assert findings["java"].text.startswith("17.")
    assert findings["home"].text.endswith("not created yet")
    assert str(settings.kafka_port) in findings["services and ports"].text


def test_a_wrong_java(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JAVA_HOME", fake_java(tmp_path / "java", 'openjdk version "11.0.2"'))
    assert wrong(settings).keys() == {"java"}
    assert "is Java 11, WikiStream needs Java 17: unset JAVA_HOME" in wrong(settings)["java"]


def test_an_empty_jar_cache(settings_factory: SettingsFactory, tmp_path: Path) -> None:
    found = wrong(settings_factory(cache=tmp_path / "empty"))
    assert found.keys() == {"jars for spark", "jars for kafka"}
    assert "is missing and 6 more: 'make up' fetches it" in found["jars for spark"]


def test_taken_ports(settings: Settings) -> None:
    with socket.socket() as kafka, socket.socket() as ui:
        for other, port in ((kafka, settings.kafka_port), (ui, settings.dagster_port)):
            other.bind(("127.0.0.1", port))
            other.listen()
        found = wrong(settings)
    assert found.keys() == {"services and ports", "port of the UI"}
    assert "set WIKISTREAM_KAFKA_PORT to another port" in found["services and ports"]
    assert "set WIKISTREAM_DAGSTER_PORT to another port" in found["port of the UI"]


def test_a_home_of_another_format(settings: Settings) -> None:
    (open_home(settings) / "lake.json").write_text('{"format_version": 9}')
    assert wrong(settings).keys() == {"home"}
    assert "has lake format 9" in wrong(settings)["home"]


def test_what_cannot_work_is_not_tried(settings_factory: SettingsFactory, tmp_path: Path) -> None:
    settings = settings_factory(cache=tmp_path / "empty")
    tried = try_out(settings, examine(settings))
    assert [(finding.name, finding.ok, finding.text) for finding in tried] == [
        ("spark", False, "not tried: first correct what is wrong with jars for spark"),
        ("broker", False, "not tried: first correct what is wrong with jars for spark"),
    ]
