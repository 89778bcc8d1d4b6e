"""``--as-of``: the lake as a reader saw it then. The expected rows are those that ``query`` gave at that moment itself."""

import time
from datetime import UTC, datetime, timedelta, timezone

import pytest

from wikistream_assets.embedded.home import open_home
from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.exceptions import ConfigurationError, LakeError
from wikistream_assets.lake.as_of import versions_as_of
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.query import query
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS, GOLD_TABLES, HOURLY_STATS, RAW_EVENTS, RISK_SCORES
from wikistream_assets_tests.conftest import Command
from wikistream_assets_tests.lake.lakes import AUDIT_BRANCH, add, arrow, full_row, publish_gold

pytestmark = pytest.mark.local

SQL = (
    "select (select string_agg(event_id, ',' order by event_id) from bronze.raw_events),"
    " (select string_agg(event_id, ',' order by event_id) from silver.cleaned_events),"
    " (select string_agg(domain, ',' order by domain) from gold.hourly_stats),"
    " (select string_agg(entity_id, ',' order by entity_id) from gold.risk_scores)"
)

Seen = tuple[object, ...]


def seen(lake: Lakehouse, as_of: str | None = None) -> Seen:
    past = None if as_of is None else lambda lake, tables: versions_as_of(lake, as_of, tables)
    [row] = query(lake, SQL, past).rows
    return row


def now() -> datetime:
    """This moment, with a millisecond, which is as exact as Iceberg's times are, to what was and to what comes."""
    time.sleep(0.002)
    moment = datetime.now(UTC)
    time.sleep(0.002)
    return moment


def look(lake: Lakehouse, looks: dict[str, Seen]) -> None:
    looks[now().isoformat()] = seen(lake)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(home=tmp_path_factory.mktemp("past") / "home")


@pytest.fixture(scope="module")
def lake(settings: Settings) -> Lakehouse:
    open_home(settings)
    return local_lake(settings)


@pytest.fixture(scope="module")
def looks(lake: Lakehouse) -> dict[str, Seen]:
    """What was seen at moments between the commits of two cycles, the second rolled back in Silver; by ISO time."""
    looks: dict[str, Seen] = {}
    look(lake, looks)
    for name in ("one", "two"):
        add(lake, RAW_EVENTS, full_row(RAW_EVENTS, event_id=name))
        look(lake, looks)
        lake.create_branch(CLEANED_EVENTS, AUDIT_BRANCH)
        row = arrow(lake, CLEANED_EVENTS, full_row(CLEANED_EVENTS, event_id=name))
        lake.append(CLEANED_EVENTS, row, branch=AUDIT_BRANCH)
        look(lake, looks)  # built, and not published: nobody sees it yet, whatever the snapshot's time is
        lake.publish([CLEANED_EVENTS], AUDIT_BRANCH)
        silver = lake.state(CLEANED_EVENTS).head_id()
        look(lake, looks)
        publish_gold(lake, silver, name, GOLD_TABLES[:2])
        look(lake, looks)  # two of the four: the mix is not to be seen
        publish_gold(lake, silver, name, GOLD_TABLES[2:])
        look(lake, looks)
    lake.reset_main(CLEANED_EVENTS, next(v.parent_id or 0 for v in lake.state(CLEANED_EVENTS).history()))
    look(lake, looks)
    return looks


def test_a_time_shows_what_was_published_then(lake: Lakehouse, looks: dict[str, Seen]) -> None:
    assert len(set(looks.values())) == 8, "the moments differ, but for those at which nothing was published"
    assert {moment: seen(lake, moment) for moment in looks} == looks


def test_a_time_may_name_its_zone_or_none(lake: Lakehouse, looks: dict[str, Seen]) -> None:
    moment = next(moment for moment, was in looks.items() if was[3] == "one")
    utc = datetime.fromisoformat(moment)
    for text in (
        utc.replace(tzinfo=None).isoformat(),
        utc.replace(tzinfo=None).isoformat(sep=" "),
        utc.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        utc.astimezone(timezone(timedelta(hours=5, minutes=30))).isoformat(),
    ):
        assert seen(lake, text) == looks[moment], text


def test_a_snapshot_stands_for_the_moment_of_its_publication(lake: Lakehouse, looks: dict[str, Seen]) -> None:
    bronze = [version.snapshot_id for version in lake.state(RAW_EVENTS).history()]
    assert seen(lake, str(bronze[1])) == ("one", None, None, None)
    assert seen(lake, str(bronze[0])) == ("one,two", "one", "one", "one")
    ids = {snapshot.snapshot_id for snapshot in lake.table(CLEANED_EVENTS).snapshots()}
    (taken_back,) = ids - {version.snapshot_id for version in lake.state(CLEANED_EVENTS).history()}
    assert seen(lake, str(taken_back)) == ("one,two", "one,two", "one", "one")


@pytest.mark.parametrize("spec", GOLD_TABLES, ids=lambda spec: spec.name)
def test_a_snapshot_of_gold_shows_all_four_at_its_version(
    lake: Lakehouse, looks: dict[str, Seen], spec: object
) -> None:
    second, first = [version.snapshot_id for version in lake.state(spec).history()][:2]  # type: ignore[arg-type]
    assert seen(lake, str(first)) == ("one", "one", "one", "one")
    assert seen(lake, str(second)) == ("one,two", "one,two", "one,two", "one,two")


def test_only_tables_that_are_read_must_have_been_there(lake: Lakehouse, looks: dict[str, Seen]) -> None:
    made = lake.table(RAW_EVENTS).metadata.snapshot_log[0]
    early = datetime.fromtimestamp(made.timestamp_ms / 1000, UTC).isoformat()
    past = lambda lake, tables: versions_as_of(lake, early, tables)  # noqa: E731
    assert list(query(lake, "select count(*) from bronze.raw_events", past).rows) == [(0,)]
    with pytest.raises(LakeError, match=f"{RISK_SCORES.identifier.split('.')[0]}.* did not exist then"):
        list(query(lake, "select count(*) from gold.risk_scores", past).rows)


def test_as_it_is_typed(settings: Settings, lake: Lakehouse, looks: dict[str, Seen], command: Command) -> None:
    bronze = [version.snapshot_id for version in lake.state(RAW_EVENTS).history()]
    done = command(
        settings, "sql", "select count(*) as n from bronze.raw_events", "-f", "json", "--as-of", str(bronze[1])
    )
    assert (done.code, done.out) == (0, '{"n": 1}\n')
    for text, code in (("4711", 1), ("soon", 2)):
        done = command(settings, "sql", "select 1 from bronze.raw_events", "--as-of", text)
        assert (done.code, done.err.count("\n")) == (code, 1)


# The lake is this module's: what follows changes it.


def test_what_is_not_there_is_one_line(lake: Lakehouse, looks: dict[str, Seen]) -> None:
    publish_gold(lake, 4711, "half", (HOURLY_STATS,))
    lake.create_branch(RAW_EVENTS, AUDIT_BRANCH)
    lake.append(RAW_EVENTS, branch=AUDIT_BRANCH)
    for text, told in {
        "4711": "no table has snapshot 4711",
        str(lake.state(RAW_EVENTS).head_id(AUDIT_BRANCH)): "bronze.raw_events has not published",
        str(lake.state(HOURLY_STATS).head_id()): "has not published that snapshot, or not in all tables",
        "2001-01-01": "did not exist then: it was made at 20",
    }.items():
        with pytest.raises(LakeError, match=told) as error:
            seen(lake, text)
        assert "\n" not in str(error.value)
    for text in ("yesterday", "", "-1", "2026-13-01", "10:00", "1" * 19 + "x"):
        with pytest.raises(ConfigurationError, match="neither a snapshot id nor a time"):
            seen(lake, text)


def test_what_maintenance_has_expired_is_said(lake: Lakehouse, looks: dict[str, Seen]) -> None:
    *_, first, oldest = lake.state(RAW_EVENTS).history()
    lake.table(RAW_EVENTS).maintenance.expire_snapshots().by_ids([first.snapshot_id, oldest.snapshot_id]).commit()
    moment = next(moment for moment, was in looks.items() if was[0] == "one")
    with pytest.raises(LakeError, match=r"raw_events is known since 20.* only: .* expired by maintenance"):
        seen(lake, moment)
    with pytest.raises(LakeError, match="maintenance has expired it"):
        seen(lake, str(first.snapshot_id))
