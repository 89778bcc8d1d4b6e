"""The runbook: a chapter for each alert, and every command in it is executed, in its order, on a pipeline with a closed gate."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from producer.eventstreams.generator import Generator
from producer.eventstreams.recording import Synthetic
from producer.eventstreams.server import EventStreamsServer
from wikistream_assets.alerts import Alert, AlertKind, Alerts
from wikistream_assets.embedded import services
from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.tables import HOURLY_STATS, RAW_EVENTS
from wikistream_assets_tests.cli.runner import wikistream
from wikistream_assets_tests.conftest import SettingsFactory, child_environment
from wikistream_assets_tests.e2e.unknown_type import EVENT_ID, send_an_unknown_type

REPOSITORY = Path(__file__).parents[1]
RUNBOOK = (REPOSITORY / "docs" / "RUNBOOK.md").read_text(encoding="utf-8")

SAYS_WHAT_IS_WRONG = (
    "make health",
    "wikistream health",
    "wikistream status",
    "wikistream gate status",
    "wikistream alerts list",
)
"""Commands whose exit code tells that something is not well, which at that moment is true."""


def commands() -> list[str]:
    """The lines of all console blocks, without their comments."""
    blocks = re.findall(r"^```console\n(.*?)^```", RUNBOOK, flags=re.MULTILINE | re.DOTALL)
    lines = (text for block in blocks for text in block.replace("\\\n", "").splitlines())
    return [line for text in lines if (line := re.sub(r"\s+# .*", "", text).strip())]


@pytest.mark.unit
def test_each_alert_has_its_chapter() -> None:
    chapters = set(re.findall(r"^### `(\w+)`$", RUNBOOK, flags=re.MULTILINE))
    assert chapters == {kind.value for kind in AlertKind}


@pytest.mark.unit
def test_no_command_stands_outside_a_block_that_is_executed() -> None:
    assert len(commands()) > 30
    assert not re.findall(r"^```(?!console$|$)", RUNBOOK, flags=re.MULTILINE)


@pytest.mark.unit
def test_commands_named_in_sentences_are_executed_too() -> None:
    sentences = re.sub(r"^```console\n.*?^```", "", RUNBOOK, flags=re.MULTILINE | re.DOTALL)
    named = {text for text in re.findall(r"`([^`]+)`", sentences) if text.startswith(("wikistream ", "make "))}
    assert {"wikistream gate status", "wikistream health"} <= named
    # a capture takes the place of the stream: e2e/test_captures.py runs it
    executed = [*commands(), "make demo SOURCE=path"]
    assert [text for text in named if not any(text in command for command in executed)] == []


@pytest.fixture
def pipeline(settings_factory: SettingsFactory) -> Iterator[Settings]:
    """Up on the synthetic source, behind it a demo whose last cycle was stopped by the Bronze gate; the loop rests.

    The failed run of a backfill is told, as the chapter on failed runs has it.
    """
    with EventStreamsServer(Synthetic(Generator(events=500))) as history:
        settings = settings_factory(
            stream_url=history.url,
            synthetic_events_per_second=5.0,
            cycle_first_seconds=86_400,
            cycle_pause_seconds=86_400,
            maintenance_every_minutes=30,  # its turn and the command's at the same moment end the command
        )
        try:
            assert wikistream("demo", "--events", "4000", settings=settings).returncode == 0
            send_an_unknown_type(settings)
            assert wikistream("demo", "--events", "4000", settings=settings).returncode == 3
            started = wikistream("up", settings=settings)
            assert started.returncode == 0, started.stderr
            Alerts(settings).fire(Alert(AlertKind.RUN_FAILED, "backfill", "backfill failed"))
            yield settings
        finally:
            services.down(settings)


@pytest.mark.e2e
@pytest.mark.long
@pytest.mark.alone
@pytest.mark.timeout(1800)
def test_every_command_of_the_runbook_runs(pipeline: Settings, tmp_path: Path) -> None:
    assert EVENT_ID in RUNBOOK
    script = Path(sys.executable).parent
    environment = {**os.environ, **child_environment(pipeline), "PATH": f"{script}:{os.environ['PATH']}"}
    exports: list[str] = []
    failed: list[str] = []
    for command in commands():
        if command.startswith("export "):
            exports.append(command)
            continue
        try:
            line = _with_real_names(command, pipeline, tmp_path)
        except LookupError as missing:  # of what an earlier command should have made
            failed.append(f"{command}\nhas no snapshot to name: {missing}")
            continue
        done = subprocess.run(
            ["bash", "-c", "\n".join([*exports, line])],
            cwd=REPOSITORY,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        not_well = 2 if command.startswith("make ") else 3  # make has a code of its own for a recipe that failed
        allowed = {0, not_well} if command in SAYS_WHAT_IS_WRONG else {0}
        if done.returncode not in allowed or "Traceback" in done.stderr:
            failed.append(f"{line}\nends with {done.returncode}:\n{done.stdout[-600:]}\n{done.stderr[-1200:]}")
    assert not failed, "\n\n".join(failed)


def _with_real_names(command: str, settings: Settings, folder: Path) -> str:
    """The command with this test's folders, two snapshots of its table and an unmasked day in place of the examples'."""
    names: dict[str, object] = {
        "/mnt/backup": folder / "backup",
        "/srv/new": folder / "new",
        "/srv/restored": folder / "restored",
    }
    if " 123 " in command:
        published = [
            v.snapshot_id for v in local_lake(settings).state(HOURLY_STATS).history() if v.position is not None
        ]
        names |= {"123": published[1], "456": published[0]}
    if " 789 " in command:
        names["789"] = [
            v.snapshot_id for v in local_lake(settings).state(RAW_EVENTS).history() if v.position is not None
        ][1]
    if "recompute_days" in command:
        names |= dict.fromkeys(("2026-03-01", "2026-03-02"), datetime.now(UTC).date())
    for example, name in names.items():
        command = command.replace(example, str(name))
    return command
