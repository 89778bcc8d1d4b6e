"""The jar cache: what is pinned, that damage is seen, and what happens without a network."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from wikistream_assets.embedded.jars import ensure_jars, find_broken, jar_folder, pinned_jars
from wikistream_assets.exceptions import SetupError
from wikistream_assets.settings import Settings
from wikistream_assets_tests.conftest import SettingsFactory

pytestmark = pytest.mark.local

SMALL = "spark-token-provider-kafka-0-10_2.12-3.5.7.jar"


@pytest.fixture
def own_cache(settings_factory: SettingsFactory, tmp_path: Path) -> Iterator[Settings]:
    """Settings with a copy of the machine's verified cache, to damage, in a folder whose name means something to Ivy."""
    cache = tmp_path / "cache [x] (y) ${z} %20 ü #"
    for path in ensure_jars("spark", Settings()):
        copy = cache / "jars" / "spark" / path.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    yield settings_factory(cache=cache)
    shutil.rmtree(cache)  # 70 MB


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut Java off: everything goes to a proxy where nobody listens."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")


def test_the_measured_versions_are_pinned() -> None:
    spark = {(jar.name, jar.revision) for jar in pinned_jars("spark")}
    assert spark == {
        ("iceberg-spark-runtime-3.5_2.12", "1.11.0"),
        ("spark-sql-kafka-0-10_2.12", "3.5.7"),
        ("spark-token-provider-kafka-0-10_2.12", "3.5.7"),
        ("kafka-clients", "3.4.1"),
        ("commons-pool2", "2.11.1"),
        ("deequ", "2.1.0-spark-3.5"),
        ("sqlite-jdbc", "3.50.3.0"),
    }
    kafka = {jar.name: jar.revision for jar in pinned_jars("kafka")}
    assert kafka["kafka_2.13"] == kafka["kafka-clients"] == "3.9.1"
    for jar in (*pinned_jars("spark"), *pinned_jars("kafka")):
        assert len(bytes.fromhex(jar.sha256)) == 32


def test_a_full_cache_is_taken_as_it_is(own_cache: Settings, no_network: None) -> None:
    paths = ensure_jars("spark", own_cache)
    assert [path.name for path in paths] == [jar.file_name for jar in pinned_jars("spark")]
    for path, jar in zip(paths, pinned_jars("spark"), strict=True):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == jar.sha256


@pytest.mark.parametrize("damage", ["longer", "changed", "gone"])
def test_damage_without_a_network_is_one_line_and_changes_nothing(
    own_cache: Settings, no_network: None, damage: str
) -> None:
    ensure_jars("spark", own_cache)
    path = jar_folder(own_cache, "spark") / SMALL
    if damage == "longer":
        path.write_bytes(path.read_bytes() + b"x")
    elif damage == "changed":
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    else:
        path.unlink()
    before = {entry.name: entry.stat().st_size for entry in path.parent.iterdir()}
    lines: list[str] = []
    with pytest.raises(SetupError) as caught:
        ensure_jars("spark", own_cache, lines.append)
    text = str(caught.value)
    assert text.startswith(f"{SMALL} cannot be fetched (")
    assert (
        f"check the network (HTTPS_PROXY and SSL_CERT_FILE are honoured) and start again, or copy the files into {path.parent}"
        in text
    )
    assert "\n" not in text
    assert ("damaged" in lines[0]) == (damage != "gone")
    assert {entry.name: entry.stat().st_size for entry in path.parent.iterdir() if entry.name != ".lock"} == {
        name: size for name, size in before.items() if name != ".lock"
    }


def test_damage_under_an_unchanged_date_is_seen_by_the_thorough_check(own_cache: Settings) -> None:
    path = ensure_jars("spark", own_cache)[0]
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert {jar.file_name: fault for jar, fault in find_broken("spark", own_cache, thorough=True).items()} == {
        path.name: "damaged"
    }


def test_a_damaged_jar_is_fetched_again(own_cache: Settings) -> None:
    path = jar_folder(own_cache, "spark") / SMALL
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    try:
        ensure_jars("spark", own_cache)
    except SetupError as error:
        if "Exception: " not in str(error):
            raise
        pytest.skip(f"needs the registry: {error}")
    assert path.read_bytes() == good
    assert sorted(entry.name for entry in path.parent.iterdir() if entry.name.startswith(".")) == [".lock"]


def test_a_cache_that_cannot_be_made_is_one_line(settings_factory: SettingsFactory, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match=r"cannot be used .*WIKISTREAM_CACHE"):
        ensure_jars("spark", settings_factory(cache=tmp_path / "file"))
