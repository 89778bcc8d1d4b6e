"""The home's layout, format, key and locks."""

import json
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from wikistream_assets.embedded.home import inspect_home, is_locked, open_home, user_key, writer_lock
from wikistream_assets.exceptions import LakeError, WriterBusyError
from wikistream_assets.settings import Settings
from wikistream_assets_tests.conftest import SettingsFactory, child_environment

pytestmark = pytest.mark.local

LOCK = "bronze.raw_events"
HOLDER = f"""
from wikistream_assets.embedded.home import writer_lock
from wikistream_assets.settings import load_settings
with writer_lock(load_settings(), "{LOCK}"):
    print("held", flush=True)
    input()
"""


def snapshot(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@contextmanager
def holding_process(settings: Settings) -> Iterator[subprocess.Popen[str]]:
    """A real second process that holds the lock until its stdin closes or it is killed."""
    environment = {**os.environ, **child_environment(settings)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_new_home_is_whole_and_opening_it_again_changes_nothing(settings: Settings) -> None:
    assert inspect_home(settings).endswith("not created yet")
    assert not settings.root.exists()
    root = open_home(settings)
    assert root == settings.root
    assert {entry.name for entry in root.iterdir()} == {
        *("warehouse", "kafka", "checkpoints", "dagster", "logs", "run", "secrets", "lake.json")
    }
    assert json.loads((root / "lake.json").read_text())["format_version"] == 1
    before = snapshot(root)
    open_home(settings)
    assert snapshot(root) == before
    assert inspect_home(settings).endswith("lake format 1")


def test_the_key_is_private_and_stays_the_same(settings: Settings, settings_factory: SettingsFactory) -> None:
    key = user_key(settings)
    assert len(key) == 32
    secrets = settings.root / "secrets"
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    assert stat.S_IMODE((secrets / "user_key").stat().st_mode) == 0o600
    assert user_key(settings) == key
    assert user_key(settings_factory()) != key


def test_a_home_opened_by_many_at_once_has_one_key(settings: Settings) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: user_key(settings), range(8)))
    assert len(set(keys)) == 1
    assert not list(settings.root.rglob(".new-*"))


@pytest.mark.parametrize("content", [None, "", "0" * 62, "0" * 66, "x" * 64, "ä" * 64])
def test_a_lost_key_is_not_made_up_anew(settings: Settings, content: str | None) -> None:
    path = open_home(settings) / "secrets" / "user_key"
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    with pytest.raises(LakeError, match=r"user_key is missing or damaged: restore it .*openssl rand -hex 32"):
        user_key(settings)


def test_a_creation_cut_short_is_completed(settings: Settings) -> None:
    key = user_key(settings)
    (settings.root / "lake.json").unlink()
    (settings.root / "logs").rmdir()
    assert user_key(settings) == key
    assert (settings.root / "lake.json").is_file()
    assert (settings.root / "logs").is_dir()


@pytest.mark.parametrize("version", [2, 0, "1"])
def test_another_format_is_refused_untouched(settings: Settings, version: object) -> None:
    open_home(settings)
    (settings.root / "lake.json").write_text(json.dumps({"format_version": version}))
    before = snapshot(settings.root)
    for function in (open_home, inspect_home):
        with pytest.raises(
            LakeError, match=rf"has lake format {version!r}, this WikiStream reads format 1: .*WIKISTREAM_HOME"
        ):
            function(settings)
    assert snapshot(settings.root) == before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"created_at": "2026-01-01"}'])
def test_a_damaged_format_file_is_refused(settings: Settings, text: str) -> None:
    open_home(settings)
    (settings.root / "lake.json").write_text(text)
    with pytest.raises(LakeError, match=r"lake\.json is damaged: .*rm -r"):
        open_home(settings)


def test_an_advised_command_is_safe_to_paste(settings_factory: SettingsFactory, tmp_path: Path) -> None:
    settings = settings_factory(home=tmp_path / "a b; $(touch pwned)")
    open_home(settings)
    (settings.root / "lake.json").write_text("{")
    with pytest.raises(LakeError) as error:
        open_home(settings)
    (command,) = re.findall(r"after '(rm -r .*)' \(this deletes", str(error.value))
    assert shlex.split(command) == ["rm", "-r", str(settings.root)]


def test_a_folder_of_something_else_is_left_alone(settings: Settings) -> None:
    settings.root.mkdir()
    (settings.root / "thesis.tex").touch()
    with pytest.raises(LakeError, match=r"is not a WikiStream home \(it holds thesis\.tex\)"):
        open_home(settings)
    assert [entry.name for entry in settings.root.iterdir()] == ["thesis.tex"]


def test_a_full_disk_is_one_line_and_the_next_run_completes(settings_factory: SettingsFactory, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a small file system")
    try:
        filler = disk / "filler"
        with pytest.raises(OSError, match="No space left"):
            fill(filler)
        settings = settings_factory(home=disk / "home")
        with pytest.raises(LakeError, match=r"cannot be written \(No space left on device\): make room"):
            open_home(settings)
        filler.unlink()
        assert len(user_key(settings)) == 32
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_second_writer_is_refused_and_told_who_writes(settings: Settings) -> None:
    open_home(settings)
    assert not is_locked(settings, LOCK)
    with holding_process(settings) as holder:
        assert is_locked(settings, LOCK)
        with (
            pytest.raises(WriterBusyError, match=rf"being written by process {holder.pid}:"),
            writer_lock(settings, LOCK),
        ):
            pytest.fail("two writers")
        with writer_lock(settings, "gold.hourly_stats"):  # another lock is no hindrance
            pass


def test_a_killed_writer_holds_nothing(settings: Settings) -> None:
    open_home(settings)
    with holding_process(settings) as holder:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert not is_locked(settings, LOCK)
        with writer_lock(settings, LOCK):
            assert is_locked(settings, LOCK)
    assert not is_locked(settings, LOCK)


def test_looking_at_a_lock_never_refuses_a_writer(settings: Settings) -> None:
    open_home(settings)
    with ThreadPoolExecutor(2) as pool:
        looks = pool.submit(lambda: [is_locked(settings, LOCK) for _ in range(3000)])
        for _ in range(300):
            with writer_lock(settings, LOCK):
                pass  # a look that took the lock for a moment would have this refused
        assert len(looks.result()) == 3000
