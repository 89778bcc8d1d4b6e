"""The lake's state: tables from contracts, positions in summaries, tags and branches. PyIceberg on a real catalog, no JVM."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import NestedField, StringType

from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.exceptions import BranchOutdatedError, LakeError
from wikistream_assets.lake.lakehouse import TABLE_PROPERTIES, Lakehouse, table_spec
from wikistream_assets.lake.state import AUDITED_TAG, MASKED_KEY, Masked, summary_properties
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS, QUARANTINE, RAW_EVENTS
from wikistream_assets.streams.registry import ALL_TABLES
from wikistream_assets.tables.spec import Column, ColumnType, TableSpec
from wikistream_assets_tests.lake.lakes import AUDIT_BRANCH, add, arrow, forget_contracts, full_row

pytestmark = pytest.mark.local


def test_every_contract_becomes_a_table(lake: Lakehouse) -> None:
    for spec in ALL_TABLES:
        table = lake.table(spec)
        assert [(field.name, field.doc) for field in table.schema().fields] == [
            (column.name, column.comment) for column in spec.columns
        ]
        assert [field.name for field in table.spec().fields] == list(spec.partition_by)
        stored = {**table.properties, "format-version": str(table.format_version)}
        assert {**TABLE_PROPERTIES, "comment": spec.description}.items() <= stored.items()
        head = lake.state(spec).head()
        assert head is not None
        assert (head.total_records, head.position) == (0, None)


def test_opening_again_changes_nothing(lake: Lakehouse, settings: Settings) -> None:
    before = [lake.table(spec).metadata_location for spec in ALL_TABLES]
    again = local_lake(settings)
    assert [again.table(spec).metadata_location for spec in ALL_TABLES] == before


def test_a_mark_of_masking_is_read_as_it_was_written(lake: Lakehouse) -> None:
    assert lake.state(CLEANED_EVENTS).masked == Masked("", 0, ())
    mark = Masked("2026-03-07", 12, ("2026-03-01", "2026-03-05"))
    lake.mark_masked(CLEANED_EVENTS, mark)
    assert lake.state(CLEANED_EVENTS).masked == mark
    # As earlier versions have written it.
    lake.set_property(CLEANED_EVENTS, MASKED_KEY, '{"before": "2026-03-03", "sequence": 4}')
    assert lake.state(CLEANED_EVENTS).masked == Masked("2026-03-03", 4, ())


def test_a_mark_of_masking_carries_on_what_another_commit_has_just_read(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream commits each second. With an older position on top, what lies between would be read again and not counted."""
    add(lake, RAW_EVENTS, full_row(RAW_EVENTS), position={"raw-events": {"0": 1}})
    load, moments = Lakehouse.table, iter(["after the table was loaded"])

    def stream_is_faster(self: Lakehouse, spec: TableSpec) -> Table:
        loaded = load(self, spec)
        if next(moments, None):
            add(lake, RAW_EVENTS, full_row(RAW_EVENTS, event_id="b"), position={"raw-events": {"0": 2}})
        return loaded

    monkeypatch.setattr(Lakehouse, "table", stream_is_faster)
    lake.mark_masked(RAW_EVENTS, Masked("2026-03-07"))
    newest, before, *_ = lake.state(RAW_EVENTS).history()
    assert (newest.masks, newest.position) == (True, {"raw-events": {"0": 2}})
    assert (before.masks, before.position) == (False, {"raw-events": {"0": 2}})
    assert lake.state(RAW_EVENTS).masked == Masked("2026-03-07")


def test_a_column_that_a_contract_gained_is_added(lake: Lakehouse, settings: Settings) -> None:
    add(lake, CLEANED_EVENTS, full_row(CLEANED_EVENTS))
    with lake.table(CLEANED_EVENTS).update_schema() as update:
        update.delete_column("title")
    forget_contracts(lake)
    table = local_lake(settings).table(CLEANED_EVENTS)
    assert set(table.schema().column_names) == set(CLEANED_EVENTS.column_names)
    assert table.scan(selected_fields=("event_id", "title")).to_arrow().to_pylist() == [
        {"event_id": "a", "title": None}
    ]


def test_a_column_that_became_wider_is_widened(lake: Lakehouse, settings: Settings) -> None:
    older(lake, CLEANED_EVENTS, revision_new="int")
    add(lake, CLEANED_EVENTS, full_row(CLEANED_EVENTS, revision_new=2**31 - 1))
    again = local_lake(settings)
    assert str(again.table(CLEANED_EVENTS).schema().find_field("revision_new").field_type) == "long"
    add(again, CLEANED_EVENTS, full_row(CLEANED_EVENTS, event_id="b", revision_new=2**31))
    rows = again.table(CLEANED_EVENTS).scan(selected_fields=("revision_new",)).to_arrow().to_pylist()
    assert sorted(row["revision_new"] for row in rows) == [2**31 - 1, 2**31]


def test_two_processes_that_open_an_older_lake_at_once(lake: Lakehouse, settings: Settings) -> None:
    for _ in range(3):
        with lake.table(CLEANED_EVENTS).update_schema() as update:
            update.delete_column("title")
        forget_contracts(lake)
        with ThreadPoolExecutor(4) as threads:
            opened = list(threads.map(lambda _: local_lake(settings), range(4)))
        names = opened[0].table(CLEANED_EVENTS).schema().column_names
        assert sorted(names) == sorted(CLEANED_EVENTS.column_names)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"new_one": "string"}, "column new_one is unknown here"),
        ({"revision_new": "string"}, "column revision_new is string there and long here"),
        ({"length_new": "long"}, "column length_new is long there and int here"),
        ({"partition_by": ("domain",)}, "it is partitioned by domain"),
    ],
    ids=["removed", "another type", "narrowed", "partitions"],
)
def test_what_cannot_be_read_whole_is_refused_in_one_line(
    lake: Lakehouse, settings: Settings, change: dict[str, Any], text: str
) -> None:
    older(lake, CLEANED_EVENTS, **change)
    before = lake.table(CLEANED_EVENTS).metadata_location
    with pytest.raises(LakeError, match=text) as error:
        local_lake(settings)
    assert "\n" not in str(error.value)
    assert "run that version" in str(error.value)
    assert lake.table(CLEANED_EVENTS).metadata_location == before


def older(lake: Lakehouse, spec: TableSpec, partition_by: tuple[str, ...] | None = None, **types: ColumnType) -> None:
    """Make the table anew as a version of WikiStream would that had other types, other columns, or other partitions."""
    forget_contracts(lake)
    lake.catalog.drop_table(spec.identifier)
    columns = tuple(replace(column, type=types.pop(column.name, column.type)) for column in spec.columns)
    columns += tuple(Column(name, kind, "") for name, kind in types.items())
    lake._create(replace(spec, columns=columns, partition_by=partition_by or spec.partition_by))
    lake._complete(replace(spec, columns=columns, partition_by=partition_by or spec.partition_by))


def test_a_creation_that_was_cut_short_is_completed(lake: Lakehouse, settings: Settings) -> None:
    lake.catalog.drop_table(QUARANTINE.identifier)
    field = NestedField(1, "event_id", StringType(), required=False)
    lake.catalog.create_table(QUARANTINE.identifier, Schema(field))
    forget_contracts(lake)
    completed = local_lake(settings)
    assert completed.state(QUARANTINE).head() is not None
    assert set(completed.table(QUARANTINE).schema().column_names) == set(QUARANTINE.column_names)


def test_the_newest_position_is_found_below_snapshots_without_one(lake: Lakehouse) -> None:
    assert lake.state(CLEANED_EVENTS).newest_position() is None
    add(lake, CLEANED_EVENTS, full_row(CLEANED_EVENTS), position={"a": 1})
    second = add(lake, CLEANED_EVENTS, full_row(CLEANED_EVENTS), position={"a": 2})
    add(lake, CLEANED_EVENTS, full_row(CLEANED_EVENTS))
    newest = lake.state(CLEANED_EVENTS).newest_position()
    assert newest is not None
    assert (newest.snapshot_id, newest.position, newest.added_records, newest.total_records) == (second, {"a": 2}, 1, 2)
    assert [version.position for version in lake.state(CLEANED_EVENTS).history()] == [None, {"a": 2}, {"a": 1}, None]
    assert [version.position for version in lake.state(CLEANED_EVENTS).history(second)] == [{"a": 2}, {"a": 1}, None]
    assert list(lake.state(CLEANED_EVENTS).history("no such ref")) == []


def test_equal_positions_are_equal_text() -> None:
    assert summary_properties({"b": 1, "a": 2}, {"y": 1, "x": 2}) == summary_properties(
        {"a": 2, "b": 1}, {"x": 2, "y": 1}
    )


def test_a_tag_moves(lake: Lakehouse) -> None:
    assert lake.state(CLEANED_EVENTS).head(AUDITED_TAG) is None
    for position in (1, 2):
        snapshot = add(lake, CLEANED_EVENTS, full_row(CLEANED_EVENTS), position={"at": position})
        lake.tag(CLEANED_EVENTS, AUDITED_TAG, snapshot)
        tagged = lake.state(CLEANED_EVENTS).head(AUDITED_TAG)
        assert tagged is not None
        assert (tagged.snapshot_id, tagged.position) == (snapshot, {"at": position})
    lake.drop_ref(CLEANED_EVENTS, AUDITED_TAG)
    lake.drop_ref(CLEANED_EVENTS, AUDITED_TAG)
    assert lake.state(CLEANED_EVENTS).head(AUDITED_TAG) is None


def test_a_branch_is_invisible_until_it_is_published(lake: Lakehouse) -> None:
    add(lake, CLEANED_EVENTS, full_row(CLEANED_EVENTS))
    lake.create_branch(CLEANED_EVENTS, "audit_other")
    rows = arrow(lake, CLEANED_EVENTS, full_row(CLEANED_EVENTS, event_id="leftover"))
    lake.append(CLEANED_EVENTS, rows, branch="audit_other")
    lake.create_branch(CLEANED_EVENTS, AUDIT_BRANCH)
    lake.append(
        CLEANED_EVENTS, arrow(lake, CLEANED_EVENTS, full_row(CLEANED_EVENTS, event_id="b")), branch=AUDIT_BRANCH
    )
    assert _ids(lake) == ["a"]
    built = lake.state(CLEANED_EVENTS).head_id(AUDIT_BRANCH)
    lake.publish([CLEANED_EVENTS], AUDIT_BRANCH)
    assert lake.state(CLEANED_EVENTS).head_id() == built
    assert _ids(lake) == ["a", "b"]
    assert lake.state(CLEANED_EVENTS).audit_branches == ()
    for overtaken in (AUDIT_BRANCH, "audit_other"):
        with pytest.raises(BranchOutdatedError, match="was overtaken"):
            lake.publish([CLEANED_EVENTS], overtaken)


@pytest.mark.parametrize("moved", [CLEANED_EVENTS, QUARANTINE], ids=lambda spec: spec.identifier)
def test_tables_are_published_together_or_not_at_all(lake: Lakehouse, moved: TableSpec) -> None:
    together = (CLEANED_EVENTS, QUARANTINE)
    for spec in together:
        lake.create_branch(spec, AUDIT_BRANCH)
        lake.append(spec, branch=AUDIT_BRANCH)
    before = {spec: lake.state(spec).head_id() for spec in together}

    def amid() -> None:
        assert {spec: lake.state(spec).head_id() for spec in together} == before, "nothing has moved yet"
        if moved in late:
            late.clear()
            lake.set_property(moved, "somebody", "else")

    late = {moved}
    lake.publish(together, AUDIT_BRANCH, amid=amid)  # another commit came between: done again on the new state
    assert not late
    assert all(lake.state(spec).head_id() != before[spec] for spec in together)


def test_a_branch_from_an_older_main_is_refused(lake: Lakehouse) -> None:
    lake.create_branch(CLEANED_EVENTS, AUDIT_BRANCH)
    add(lake, CLEANED_EVENTS, full_row(CLEANED_EVENTS))
    before = lake.state(CLEANED_EVENTS).head()
    with pytest.raises(BranchOutdatedError, match="build it again"):
        lake.publish([CLEANED_EVENTS], AUDIT_BRANCH)
    assert lake.state(CLEANED_EVENTS).head() == before


def test_main_can_be_set_back(lake: Lakehouse) -> None:
    first = add(lake, CLEANED_EVENTS, full_row(CLEANED_EVENTS))
    add(lake, CLEANED_EVENTS, full_row(CLEANED_EVENTS, event_id="b"))
    lake.reset_main(CLEANED_EVENTS, first)
    assert _ids(lake) == ["a"]


def test_an_unknown_table_is_named_with_the_known_ones() -> None:
    assert table_spec("silver.cleaned_events") is CLEANED_EVENTS
    with pytest.raises(LakeError, match=r"no table 'silver.nothing'; known: bronze.dead_letter, bronze.raw_events"):
        table_spec("silver.nothing")


def test_a_home_that_cannot_hold_a_catalog_is_one_line(settings: Settings, tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("not a folder")
    with pytest.raises(LakeError, match="file is not a folder: set WIKISTREAM_HOME"):
        local_lake(settings.model_copy(update={"home": in_the_way}))


def _ids(lake: Lakehouse) -> list[str]:
    rows = lake.table(CLEANED_EVENTS).scan(selected_fields=("event_id",)).to_arrow().to_pylist()
    return sorted(row["event_id"] for row in rows)
