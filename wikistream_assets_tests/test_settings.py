"""Settings: one class, unknown names refused, errors that name the variable."""

import pytest

from producer.settings import OTHER_SETTINGS, ProducerSettings
from wikistream_assets.exceptions import ConfigurationError
from wikistream_assets.settings import load_settings

pytestmark = pytest.mark.unit


def test_unknown_settings_are_refused_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WIKISTREAM_KAFKA_PROT", "1")
    with pytest.raises(ConfigurationError, match=r"unknown setting WIKISTREAM_KAFKA_PROT: .*WIKISTREAM_KAFKA_PORT"):
        load_settings()


def test_a_wrong_value_names_the_variable_and_what_it_must_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WIKISTREAM_KAFKA_PORT", "many")
    with pytest.raises(ConfigurationError, match=r"WIKISTREAM_KAFKA_PORT: Input should be a valid integer.*'many'"):
        load_settings()


@pytest.mark.parametrize("minutes", ["0", "7", "45", "59", "60"])
def test_pauses_between_maintenances_are_equal_or_refused(monkeypatch: pytest.MonkeyPatch, minutes: str) -> None:
    monkeypatch.setenv("WIKISTREAM_MAINTENANCE_EVERY_MINUTES", minutes)
    told = f"WIKISTREAM_MAINTENANCE_EVERY_MINUTES: must divide an hour .*: choose from 1, 2, 3, .*, 30 .got '{minutes}'"
    with pytest.raises(ConfigurationError, match=told):
        load_settings()


@pytest.mark.parametrize("minutes", [1, 12, 30])
def test_a_pause_between_maintenances_that_divides_an_hour(monkeypatch: pytest.MonkeyPatch, minutes: int) -> None:
    monkeypatch.setenv("WIKISTREAM_MAINTENANCE_EVERY_MINUTES", str(minutes))
    assert load_settings().maintenance_every_minutes == minutes


def test_bootstrap_servers_follow_the_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WIKISTREAM_KAFKA_PORT", "19555")
    assert load_settings().bootstrap_servers == "127.0.0.1:19555"
    monkeypatch.setenv("WIKISTREAM_BOOTSTRAP_SERVERS", "kafka:9092")
    assert load_settings().bootstrap_servers == "kafka:9092"


def test_every_setting_says_what_it_means() -> None:
    from wikistream_assets.settings import Settings

    undocumented = [name for name, field in Settings.model_fields.items() if not field.description and name != "env"]
    assert undocumented == []


def test_the_producer_knows_the_names_of_the_other_settings_and_leaves_them_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from wikistream_assets.settings import Settings

    added = {name.upper() for name in set(Settings.model_fields) - set(ProducerSettings.model_fields)}
    assert added == OTHER_SETTINGS
    monkeypatch.setenv("WIKISTREAM_HOME", "/somewhere")
    assert not hasattr(ProducerSettings(), "home")
    monkeypatch.setenv("WIKISTREAM_HOMES", "/somewhere")
    with pytest.raises(ValueError, match="unknown setting WIKISTREAM_HOMES"):
        ProducerSettings()
