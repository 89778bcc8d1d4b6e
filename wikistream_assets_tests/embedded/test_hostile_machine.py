"""A machine that hands over everything wrong at once: Spark and the broker work all the same, or the cause is one line."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from wikistream_assets.embedded.trial import try_broker, try_session
from wikistream_assets.exceptions import SetupError
from wikistream_assets.settings import Settings
from wikistream_assets_tests.conftest import SettingsFactory, child_environment
from wikistream_assets_tests.machine.test_variables import HOSTILE

pytestmark = pytest.mark.e2e

_NAMESPACES = """\
given=$PATH PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount --bind /tmp /tmp && mount -o remount,bind,noexec /tmp && hostname no-such-host-x || exit 77
unshare=$(command -v unshare) PATH=$given
umask 077
exec "$unshare" --user --map-user=12345 --map-group=12345 "$@"
"""
"""In the command that follows /tmp is mounted noexec, the host's name does not resolve, the user has no name."""


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder outside /tmp, from which libraries can be loaded."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        yield Path(folder)


def hostile_environment(settings: Settings) -> dict[str, str]:
    # with PYTHONHOME Python does not come as far as to run anything
    foreign = {name: value for name, value in HOSTILE.items() if name != "PYTHONHOME"}
    kept = {name: os.environ[name] for name in ("JAVA_HOME", "LD_LIBRARY_PATH") if name in os.environ}
    others = {"PATH": "/no/such/folder", "http_proxy": "http://127.0.0.1:9", "TZ": "Foo/Bar", "LC_ALL": "tr_TR.UTF-8"}
    return kept | foreign | others | child_environment(settings)


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("unshare"), reason="needs root and unshare")
@pytest.mark.skipif(Path(sys.prefix).parts[1] == "tmp", reason="mounts /tmp noexec, and its own libraries lie there")
def test_the_doctor_finds_all_well_on_the_worst_machine(settings_factory: SettingsFactory, elsewhere: Path) -> None:
    settings = settings_factory(home=elsewhere / "home", cache=Path("~/.cache/wikistream").expanduser())
    doctor = [sys.executable, "-m", "wikistream_assets", "doctor"]
    namespaces = [str(shutil.which("unshare")), "--mount", "--uts", "/bin/sh", "-c", _NAMESPACES, "sh"]
    done = subprocess.run(
        [*namespaces, *doctor], env=hostile_environment(settings), capture_output=True, text=True, check=False
    )
    if done.returncode == 77:
        pytest.skip("needs the right to mount and to name the host")
    assert [line for line in done.stdout.splitlines() if not line.startswith("ok ")] == [], done.stderr
    assert done.returncode == 0, done.stderr
    tried = {line.split()[1] for line in done.stdout.splitlines() if "started" in line}
    assert tried == {"spark", "broker"}
    assert list(elsewhere.iterdir()) == [], "the home was not touched"


def test_more_memory_than_there_is(
    settings_factory: SettingsFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr("tempfile.tempdir", None)
    settings = settings_factory(spark_memory_mb=900_000_000)
    with pytest.raises(SetupError, match=r"Could not reserve enough space .*free memory, or lower WIKISTREAM_SPARK_"):
        try_session(settings)
    assert list(temporary.iterdir()) == []
    assert not settings.root.exists()


def test_nowhere_to_load_libraries_from(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wikistream_assets.machine.java._is_noexec", lambda _: True)
    with pytest.raises(SetupError, match=r"mounted noexec or cannot be written\): set TMPDIR to a folder") as caught:
        try_broker(settings)
    assert "\n" not in str(caught.value)
    assert not settings.root.exists()
