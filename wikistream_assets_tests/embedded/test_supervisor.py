"""A real supervisord without programs: what it was started with."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from wikistream_assets.embedded import services, supervisor
from wikistream_assets.embedded.home import open_home
from wikistream_assets.settings import Settings
from wikistream_assets_tests.conftest import SettingsFactory

pytestmark = pytest.mark.local


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose path leaves a socket in it some room; pytest's own does not."""
    with tempfile.TemporaryDirectory(prefix="ws") as folder:
        yield Path(folder)


def with_secret(settings: Settings, text: str) -> Settings:
    return settings.model_copy(update={"alert_smtp_password": SecretStr(text)})


@pytest.mark.parametrize("name", ["plain", "a b: [c]#d; é 100% \"'$HOME", "too long for a socket" + 20 * "/日本語"])
def test_a_changed_secret_is_noticed(settings_factory: SettingsFactory, short_path: Path, name: str) -> None:
    settings = settings_factory(home=short_path / name)
    configuration = open_home(settings) / "run" / "supervisord.conf"
    configuration.write_text(services._supervisord_section(settings))
    assert not supervisor.has_other_secrets(with_secret(settings, "a")), "there is no supervisord"
    supervisor.start(with_secret(settings, "a"), configuration)
    try:
        assert not supervisor.has_other_secrets(with_secret(settings, "a"))
        assert supervisor.has_other_secrets(with_secret(settings, "b"))
        assert supervisor.has_other_secrets(settings)
    finally:
        supervisor.stop(settings)


def test_a_terminal_and_cron_look_for_supervisord_in_one_place(
    settings_factory: SettingsFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_factory(home=tmp_path / ("long" * 30))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    elsewhere = supervisor.socket_path(settings)
    monkeypatch.setattr("tempfile.tempdir", None)
    assert supervisor.socket_path(settings) == elsewhere
