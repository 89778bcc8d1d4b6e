"""What people type, in folders whose names mean something to a shell, to make, to a URL or to a .properties file."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from wikistream_assets.embedded import services
from wikistream_assets.embedded.jars import ensure_jars
from wikistream_assets.settings import Settings
from wikistream_assets_tests.conftest import SettingsFactory, child_environment, wait_until

pytestmark = pytest.mark.e2e

REPOSITORY = Path(__file__).parents[2]
NAME = "a b/c#d/ümlaut 'x'"


@pytest.fixture
def settings(settings_factory: SettingsFactory, tmp_path: Path) -> Iterator[Settings]:
    """Home and cache under the name, the cache already full; whatever runs is stopped at the end."""
    cache = tmp_path / NAME / "cache"
    for jars in (ensure_jars(names, Settings()) for names in ("spark", "kafka")):
        folder = cache / "jars" / jars[0].parent.name
        folder.mkdir(parents=True)
        for jar in jars:
            (folder / jar.name).symlink_to(jar)
    settings = settings_factory(home=tmp_path / NAME / "home", cache=cache)
    yield settings
    services.down(settings)


@pytest.mark.long
@pytest.mark.timeout(3_600)
def test_a_clean_clone_under_an_odd_name_does_everything(settings: Settings, tmp_path: Path) -> None:
    clone = tmp_path / NAME / "clone"
    subprocess.run(["git", "clone", "--quiet", REPOSITORY, clone], check=True)
    others = {name: value for name, value in os.environ.items() if not name.startswith(("WIKISTREAM_", "MAKE"))}
    environment = {**others, **child_environment(settings)}

    def make(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", *arguments], cwd=clone, env=environment, capture_output=True, text=True, timeout=1_800, check=False
        )

    def bronze_rows() -> int:
        command = [clone / ".venv" / "bin" / "wikistream", "sql", "select count(*) from bronze.raw_events"]
        done = subprocess.run(
            [*command, "--format", "csv"], env=environment, capture_output=True, text=True, check=True
        )
        return int(done.stdout.split()[-1])

    demo = make("demo", "EVENTS=2000")
    assert demo.returncode == 0, demo.stdout[-3000:] + demo.stderr[-3000:]
    assert "every gate passed" in demo.stdout
    assert (clone / ".venv" / "share" / "wikistream" / "spark-classes.jsa").exists(), "Java could write to this path"
    before = bronze_rows()
    assert before > 0
    up = make("up")
    assert up.returncode == 0, up.stdout + up.stderr
    wait_until(lambda: make("health").returncode == 0, 300)
    assert "stopped" in make("down").stdout
    assert bronze_rows() > before
    # no file beside the folders that the name asks for
    folder = tmp_path
    for part in Path(NAME).parts:
        assert [entry.name for entry in folder.iterdir()] == [part]
        folder /= part
    assert sorted(entry.name for entry in folder.iterdir()) == ["cache", "clone", "home"]
