"""What is done to tables that stand, under fire: masking, maintenance, rollback and backup are ended at work and done again.

Each case ends with the hashes of a lake to which the same was done undisturbed, and has a control: the steps in another order,
or in more than one commit.
"""

import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from wikistream_assets.embedded.home import open_home
from wikistream_assets.engine import failpoints
from wikistream_assets.lake.local_files import local_path
from wikistream_assets.lake.state import Masked
from wikistream_assets.lake.table_hash import table_hashes
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS, GOLD_TABLES, QUARANTINE, RAW_EVENTS
from wikistream_assets_tests.cli.runner import start, wikistream
from wikistream_assets_tests.conftest import SettingsFactory, wait_until
from wikistream_assets_tests.engine.bronze_lakes import event_ids
from wikistream_assets_tests.engine.gate_lakes import GateLake, Row
from wikistream_assets_tests.faults.conftest import Account
from wikistream_assets_tests.quality.samples import clean_rows
from wikistream_assets_tests.upkeep.test_backfill import DAY, on_next_day

pytestmark = [pytest.mark.faults, pytest.mark.spark]

LIMITS: dict[str, Any] = {"privacy_mask_after_days": 90, "maintenance_min_input_files": 2}


@dataclass(frozen=True)
class Calm:
    """The hashes of a lake that nothing happened to: two cycles, and then masked. ``home`` has its key."""

    home: Path
    published: dict[str, str]
    masked: dict[str, str]


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Calm:
    settings = Settings(home=tmp_path_factory.mktemp("calm") / "home", **LIMITS)
    open_home(settings)
    gates = GateLake(settings)
    publish(gates)
    published = table_hashes(gates.lake)
    command(gates, "mask")
    return Calm(settings.root, published, table_hashes(gates.lake))


@pytest.fixture
def gates(calm: Calm, settings_factory: SettingsFactory) -> GateLake:
    """An empty lake, whose users are hashed under the same key as the calm one's."""
    settings = settings_factory(**LIMITS)
    open_home(settings)
    shutil.copytree(calm.home / "secrets", settings.root / "secrets", dirs_exist_ok=True)
    return GateLake(settings)


def rows_of_two_days() -> list[Row]:
    """The rows, and the same a day later; both so long ago that their users' names have to go, whatever day it is."""
    rows = [
        {**row, "user": f"Somebody {number % 40}", "is_bot": False}
        for number, row in enumerate(clean_rows(RAW_EVENTS)[:450])
    ]
    return [*rows, *on_next_day(rows)]


def ids() -> list[str]:
    """The events of ``rows_of_two_days``."""
    return [row["event_id"] for row in rows_of_two_days()]


def publish(gates: GateLake) -> dict[str, int]:
    """Two cycles, so that there is something to go back to and something to compact; main of each table after the first."""
    rows = rows_of_two_days()
    gates.add_bronze(rows[:600])
    assert all(report.passed for report in gates.cycle())
    first = gates.mains()
    gates.add_bronze(rows[600:])
    assert all(report.passed for report in gates.cycle())
    return first


def command(gates: GateLake, *arguments: str, failpoint: str = "") -> None:
    """Run ``wikistream``; with a failpoint it has to die there."""
    done = wikistream(*arguments, settings=gates.ctx.settings, WIKISTREAM_FAILPOINT=failpoint)
    assert done.returncode == (-signal.SIGKILL if failpoint else 0), done.stderr[-2000:]


def published_ids(gates: GateLake) -> list[str]:
    """The ids in Silver and its quarantine; Bronze has the same."""
    both = "select event_id from silver.cleaned_events union all select event_id from quarantine.cleaned_events"
    found = sorted(str(row[0]) for row in gates.rows(both))
    assert event_ids(gates.lake) == found
    return found


@pytest.mark.parametrize(
    "failpoint",
    [failpoints.MASKING_AFTER_DATE, f"{failpoints.MASKING_AFTER_DATE}@4", failpoints.MASKING_AFTER_MANIFESTS],
)
def test_masking_killed_at_each_boundary(gates: GateLake, calm: Calm, account: Account, failpoint: str) -> None:
    publish(gates)
    command(gates, "mask", failpoint=failpoint)
    command(gates, "mask")
    assert gates.rows("select event_id from bronze.raw_events where \"user\" like 'Somebody%'") == []
    account.settle("more", f"masking kill -9 at {failpoint}", sent=ids(), found=published_ids(gates), kills=1)
    assert table_hashes(gates.lake) == calm.masked


def test_masking_control_the_mark_first(gates: GateLake, account: Account) -> None:
    """Killed between the mark and the dates: nobody looks at them again, and what was to be hidden stays."""
    publish(gates)
    sequence = gates.lake.table(RAW_EVENTS).last_sequence_number
    gates.lake.mark_masked(RAW_EVENTS, Masked("2026-03-03", sequence))
    command(gates, "mask")
    hidden = gates.rows("select event_id from bronze.raw_events where \"user\" not like 'Somebody%'")
    assert hidden == []
    fault = "masking kill -9; the mark first, the rows afterwards"
    account.settle("more", fault, sent=ids(), found=[row[0] for row in hidden], control=True)


def test_maintenance_killed_after_compaction(gates: GateLake, calm: Calm, account: Account) -> None:
    publish(gates)
    command(gates, "maintain", failpoint=failpoints.MAINTENANCE_AFTER_COMPACT)
    command(gates, "maintain")
    account.settle("more", "maintenance kill -9 after compaction", sent=ids(), found=published_ids(gates), kills=1)
    assert table_hashes(gates.lake) == calm.published


@pytest.mark.parametrize(("name", "fault"), [("mask", "masking"), ("maintain", "maintenance")])
def test_masking_and_maintenance_told_to_end(
    gates: GateLake, calm: Calm, account: Account, name: str, fault: str
) -> None:
    """As soon as a first table has changed; the next run does what is left."""
    publish(gates)
    before = gates.mains()
    with start(name, settings=gates.ctx.settings) as process:
        wait_until(lambda: gates.mains() != before)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=300)
    assert process.returncode == -signal.SIGTERM, errors[-2000:]
    command(gates, name)
    account.settle("more", f"{fault} SIGTERM at work", sent=ids(), found=published_ids(gates))
    assert table_hashes(gates.lake) == (calm.masked if name == "mask" else calm.published)


def test_maintenance_control_rows_deleted_and_put_back(gates: GateLake, account: Account) -> None:
    """Two commits instead of one, and killed between them."""
    publish(gates)
    gates.ctx.spark.sql(f"DELETE FROM wikistream.{RAW_EVENTS.identifier} WHERE event_date = '{DAY}'")
    left = event_ids(gates.lake)
    assert len(left) == len(ids()) // 2, "the other day's"
    fault = "compaction kill -9; rows deleted in one commit and put back in another"
    account.settle("more", fault, sent=ids(), found=left, control=True)


def _back_to(mains: dict[str, int]) -> tuple[str, ...]:
    """The command that sets Silver back to where it was then, and with it what was made from it."""
    target = str(mains[CLEANED_EVENTS.identifier])
    return ("rollback", CLEANED_EVENTS.identifier, target, "--reason", "a fault case")


@pytest.mark.parametrize(
    ("failpoint", "again"),
    [
        (failpoints.ROLLBACK_AFTER_DECISION, True),
        (failpoints.ROLLBACK_AFTER_TABLE, False),
        (f"{failpoints.ROLLBACK_AFTER_TABLE}@5", False),
    ],
)
def test_rollback_killed_at_each_boundary(
    gates: GateLake, calm: Calm, account: Account, failpoint: str, again: bool
) -> None:
    """Done again, or left as it is: the next cycle ends with the same tables."""
    first = publish(gates)
    back = _back_to(first)
    command(gates, *back, failpoint=failpoint)
    if again:
        command(gates, *back)
        assert gates.mains(CLEANED_EVENTS, QUARANTINE).items() <= first.items()
    assert all(report.passed for report in gates.cycle())
    fault = f"rollback kill -9 at {failpoint}, {'done again' if again else 'left as it is'}"
    account.settle("more", fault, sent=ids(), found=published_ids(gates), kills=1)
    assert table_hashes(gates.lake) == calm.published


def test_rollback_told_to_end(gates: GateLake, calm: Calm, account: Account) -> None:
    """As soon as a first table is set back; done again."""
    first = publish(gates)
    before, back = gates.mains(*GOLD_TABLES), _back_to(first)
    with start(*back, settings=gates.ctx.settings) as process:
        wait_until(lambda: gates.mains(*GOLD_TABLES) != before)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=300)
    assert process.returncode == -signal.SIGTERM, errors[-2000:]
    command(gates, *back)
    assert gates.mains(CLEANED_EVENTS, QUARANTINE).items() <= first.items()
    assert all(report.passed for report in gates.cycle())
    account.settle("more", "rollback SIGTERM at work", sent=ids(), found=published_ids(gates))
    assert table_hashes(gates.lake) == calm.published


def test_rollback_control_silver_first(gates: GateLake, account: Account) -> None:
    """Killed between Silver and Gold: Gold counts what is not in Silver any more."""
    first = publish(gates)
    gates.lake.reset_main(CLEANED_EVENTS, first[CLEANED_EVENTS.identifier])
    [(silver, gold)] = gates.rows(
        "select (select count(*) from silver.cleaned_events), (select sum(total_events) from gold.hourly_stats)"
    )
    fault = "rollback kill -9; Silver first, Gold afterwards"
    account.settle("more", fault, sent=map(str, range(silver)), found=map(str, range(gold)), control=True)


def test_backup_told_to_end(
    gates: GateLake, calm: Calm, account: Account, settings_factory: SettingsFactory, tmp_path: Path
) -> None:
    """While it copies: what is there counts as no backup, and the next one completes it."""
    publish(gates)
    folder, elsewhere = tmp_path / "backup", settings_factory(**LIMITS)
    restore = ("restore", str(folder), "--home", str(elsewhere.root))
    with start("backup", str(folder), settings=gates.ctx.settings) as process:
        wait_until((folder / "warehouse").exists)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=300)
    assert process.returncode == -signal.SIGTERM, errors[-2000:]
    refused = wikistream(*restore, settings=gates.ctx.settings)
    assert refused.returncode == 1
    assert "is no complete backup" in refused.stderr
    command(gates, "backup", str(folder))
    command(gates, *restore)
    restored = GateLake(elsewhere)
    account.settle("more", "backup SIGTERM at work", sent=ids(), found=published_ids(restored))
    assert table_hashes(restored.lake) == calm.published


def test_backup_control_the_files_first(gates: GateLake, account: Account, tmp_path: Path) -> None:
    """A copy of the files, and then of the catalog: it names what was written in between."""
    rows = rows_of_two_days()
    gates.add_bronze(rows[:600])
    copy = tmp_path / "copy"
    shutil.copytree(gates.ctx.settings.warehouse, copy)
    gates.add_bronze(rows[600:])
    newest = Path(local_path(gates.lake.table(RAW_EVENTS).metadata_location))
    copied = copy / newest.relative_to(gates.ctx.settings.warehouse)
    assert not copied.exists(), "the table as the catalog names it cannot be opened"
    fault = "backup while the lake is written; a copy of the files, then of the catalog"
    account.settle("more", fault, sent=ids(), found=event_ids(gates.lake) if copied.exists() else [], control=True)
