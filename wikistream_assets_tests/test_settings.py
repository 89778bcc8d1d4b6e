"""Settings: one class, unknown names refused, errors that name the variable."""

import os
from pathlib import Path

import pytest

from producer.exceptions import SourceError
from producer.launch import source_from
from producer.settings import OTHER_SETTINGS, ProducerSettings
from wikistream_assets.embedded.home import open_home
from wikistream_assets.exceptions import ConfigurationError, LakeError
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


@pytest.mark.parametrize(
    ("name", "folder", "reason"),
    [
        ("HOME", "one\ntwo", "contains a control character (a line break or a tab, for example)"),
        ("HOME", "bell\x07", "contains a control character (a line break or a tab, for example)"),
        ("HOME", os.fsdecode(b"latin\xfc"), "is not UTF-8"),
        ("HOME", "what?", "contains ?, which would end the name of Dagster's database file"),
        ("HOME", "back\\slash [1]", "contains \\ and [, which DuckDB cannot tell from a pattern"),
        ("CACHE", "a:b", "contains :, which separates the entries of a Java class path"),
        ("CACHE", "one\ttwo", "contains a control character (a line break or a tab, for example)"),
    ],
)
def test_a_folder_that_cannot_work_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, folder: str, reason: str
) -> None:
    monkeypatch.setenv(f"WIKISTREAM_{name}", str(tmp_path / folder))
    with pytest.raises(ConfigurationError) as error:
        load_settings()
    text = str(error.value)
    assert text.startswith(f"WIKISTREAM_{name}: {str(tmp_path / folder)!r} {reason}: choose another folder")
    assert text.isprintable()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_behind_a_link_is_judged_by_its_own_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "what?").mkdir()
    (tmp_path / "plain").symlink_to(tmp_path / "what?")
    monkeypatch.setenv("WIKISTREAM_HOME", str(tmp_path / "plain" / "lake"))
    with pytest.raises(ConfigurationError, match="contains"):
        load_settings()
    monkeypatch.chdir(tmp_path / "what?")
    monkeypatch.delenv("WIKISTREAM_HOME")
    with pytest.raises(ConfigurationError, match=r"WIKISTREAM_HOME: '.*/what\?/\.wikistream' contains"):
        load_settings()


def test_a_loop_of_links_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    monkeypatch.setenv("WIKISTREAM_HOME", str(tmp_path / "loop"))
    with pytest.raises(LakeError, match=r"loop cannot be written \(Too many levels of symbolic links\)"):
        open_home(load_settings())
    with pytest.raises(SourceError, match="loop"):
        source_from(str(tmp_path / "loop"), ProducerSettings())


def test_a_tilde_is_a_home_folder_or_part_of_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    for written, meant in {"~/lake": "user/lake", "~nobody here": "~nobody here", "-x": "-x", " x": " x"}.items():
        monkeypatch.setenv("WIKISTREAM_HOME", written)
        assert load_settings().root == tmp_path / meant
