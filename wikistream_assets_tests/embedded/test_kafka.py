"""A broker's storage that cannot be formatted: the cause in one line, and no advice that does not fit."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from wikistream_assets.embedded import kafka
from wikistream_assets.embedded.home import open_home
from wikistream_assets.exceptions import BrokerError
from wikistream_assets.settings import Settings
from wikistream_assets_tests.conftest import SettingsFactory
from wikistream_assets_tests.machine.test_variables import HOSTILE

pytestmark = pytest.mark.kafka


def prepared(settings: Settings) -> Path:
    """The folder of a home's broker, with its files."""
    open_home(settings)
    for path, text in kafka.files(settings).items():
        path.write_text(text, encoding="utf-8")
    return settings.kafka_dir


@contextmanager
def disk_at(folder: Path, *options: str) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount a small file system")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def refused(settings: Settings) -> str:
    with pytest.raises(BrokerError) as caught:
        kafka.format_storage(settings)
    text = str(caught.value)
    assert text.startswith(f"the broker's storage {settings.kafka_dir / 'data'} cannot be formatted (")
    assert "\n" not in text
    assert "\tat " not in text
    return text


def test_a_full_disk(settings: Settings) -> None:
    data = prepared(settings) / "data"
    with disk_at(data, "size=4k"):
        (data / "filler").write_bytes(b"x" * 4096)
        assert refused(settings).endswith("No space left on device): make room")


def test_a_disk_that_is_mounted_read_only(settings: Settings) -> None:
    data = prepared(settings) / "data"
    with disk_at(data, "ro"):
        assert refused(settings).endswith("Read-only file system): make its file system writable")


def test_a_setting_that_kafka_refuses(settings_factory: SettingsFactory) -> None:
    settings = settings_factory(kafka_port=29092, kafka_controller_port=29092)
    prepared(settings)
    text = refused(settings)
    assert "listeners on the same port" in text
    assert text.endswith("): 'make doctor' checks the machine")


def test_options_of_another_java_and_another_kafka_do_not_count(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    prepared(settings)
    kafka.format_storage(settings)
    assert (settings.kafka_dir / "data" / "meta.properties").is_file()
