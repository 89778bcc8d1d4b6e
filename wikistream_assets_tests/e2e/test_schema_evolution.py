"""Every published version of the stream in one table, and a lake that a newer version of WikiStream takes over."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import wikistream_assets
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.spark_io import read_table
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS, DEAD_LETTER, GOLD_TABLES, RAW_EVENTS
from wikistream_assets.tables.spec import TableSpec
from wikistream_assets_tests import oracle
from wikistream_assets_tests.cli.runner import wikistream
from wikistream_assets_tests.conftest import SettingsFactory, child_environment
from wikistream_assets_tests.e2e.pipeline import Pipeline
from wikistream_assets_tests.kafka_records import judged, produce
from wikistream_assets_tests.producer.samples import ID, line

pytestmark = [pytest.mark.e2e, pytest.mark.spark, pytest.mark.kafka]

_ROOT = Path(wikistream_assets.__file__).parents[1]


@pytest.fixture
def settings(settings_factory: SettingsFactory, fresh_topics: Broker) -> Settings:
    return settings_factory(bootstrap_servers=fresh_topics.bootstrap_servers)


@pytest.fixture
def pipeline(settings: Settings) -> Pipeline:
    return Pipeline(settings)


def versions() -> dict[str, tuple[str, str | None]]:
    """A line of each published version, as its schema has it; and what its row says about its schema."""
    before_2020 = ("$schema", "meta_stream", "title_url", "notify_url")
    before_2024 = ("title_url", "notify_url")
    seconds, offset = "2026-03-01T12:00:02Z", "2026-03-01T12:00:02+00:00"
    lines = {
        "schema 1, 2018": line(*before_2020, meta_dt=offset, meta_schema_uri="mediawiki/recentchange/1", user="192.0.2.7"),
        "schema 2, 2019": line(*before_2020, meta_dt=offset, meta_schema_uri="mediawiki/recentchange/2"),
        "schema 2 without its name": line(*before_2020, meta_dt=offset),
        "1.0.0, 2021": line(*before_2024, meta_dt=seconds, **{"$schema": "/mediawiki/recentchange/1.0.0"}),
        "1.0.1, numeric type": line(
            *before_2024, meta_dt=seconds, type=142, **{"$schema": "/mediawiki/recentchange/1.0.1"}
        ),
        "2024, page and notify addresses": line(meta_dt=seconds),
        "2026, milliseconds, temporary account": line(),
        "1.0.0, log event without id": line(
            "id", "length", "revision", "title_url", type="log", log_id=0, log_type="abusefilter", log_params={"filter": "4"}
        ),
        "of a version to come, with more fields": line(
            **{"$schema": "/mediawiki/recentchange/2.0.0", "page": {"is_redirect": False, "deep": [[1]]}, "meta_new": 1}
        ),
    }  # fmt: skip
    found: dict[str, tuple[str, str | None]] = {}
    for number, (name, text) in enumerate(lines.items()):
        event = json.loads(text.replace(ID, f"version-{number}"))
        found[name] = (json.dumps(event), event.get("$schema") or event["meta"].get("schema_uri"))
    return found


def test_every_version_of_the_stream_stands_in_one_table(pipeline: Pipeline) -> None:
    events = versions()
    lines = [text for text, _ in events.values()]
    real = pipeline.settings.data / "other" / "cjmatta_recentchange.json"
    if real.exists():  # an event of 2019 as it was sent
        lines.append(json.dumps(json.loads(real.read_text())))
    produce(pipeline.settings.bootstrap_servers, judged(lines))
    reports = pipeline.cycle()
    assert all(report.passed for report in reports)
    assert pipeline.lake.state(DEAD_LETTER).head().total_records == 0  # type: ignore[union-attr]
    pipeline.assert_tables_follow_from(lines, None)
    bronze = {row["event_id"]: row for row in pipeline.rows(RAW_EVENTS)}
    for number, (name, (text, schema)) in enumerate(events.items()):
        row = bronze[f"version-{number}"]
        assert (row["payload"], row["schema_version"]) == (text, schema), name  # unknown fields and all


def test_fields_of_another_type_are_dead_letters_or_null_and_never_a_crash(pipeline: Pipeline) -> None:
    """The producer refuses them with their field; what another writer puts past it keeps its row and its payload."""
    retyped = {
        "namespace": "0",
        "length": [1, 2],
        "timestamp": "today",
        "bot": "yes",
        "title": 5,
        "revision": {"new": {}},
    }
    lines = [line(**{field: value}).replace(ID, f"bad-{field}") for field, value in retyped.items()]
    produce(pipeline.settings.bootstrap_servers, judged([*lines, line()]))
    assert all(report.passed for report in pipeline.cycle())
    letters = pipeline.rows(DEAD_LETTER)
    assert {letter["reason"] for letter in letters} == {"wrong_type"}
    assert sorted(letter["detail"].split(":")[0].split(".")[0] for letter in letters) == sorted(retyped)


def _next_version(folder: Path) -> Path:
    """WikiStream as its next version might be: one column more in Bronze and in Silver, in the middle of the contract."""
    for package in ("wikistream_assets", "producer"):
        shutil.copytree(_ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    column = '    ("notify_url", "string", "address of the change; absent before 2024"),\n'
    for path, before, after in (
        ("streams/edits/tables/bronze.py", '        ("title_url", "string"', f"    {column}" + '        ("title_url", "string"'),
        ("streams/edits/tables/silver.py", '    ("namespace", "int"', column + '    ("namespace", "int"'),
        ("streams/edits/raw_events.py", "title_url STRING, ", "title_url STRING, notify_url STRING, "),
        ("streams/edits/raw_events.py", '("title", "title_url", "user")', '("title", "title_url", "notify_url", "user")'),
    ):  # fmt: skip
        file = folder / "wikistream_assets" / path
        text = file.read_text()
        assert text.count(before) == 1, f"{path} has changed: correct this test"
        file.write_text(text.replace(before, after))
    return folder


_CYCLE = """
from wikistream_assets.engine import bronze_gate, ingest, publication
from wikistream_assets.engine.context import JobContext
from wikistream_assets.environment.choice import environment_of
from wikistream_assets.settings import load_settings
from wikistream_assets.streams.edits.stream import EDITS

context = JobContext(environment_of(load_settings()), "next version", EDITS)
ingest.drain(context)
assert bronze_gate.run(context).passed
assert all(publication.run(context, each).passed for each in EDITS.publications)
"""


@pytest.mark.long
def test_a_newer_version_takes_over_the_lake(pipeline: Pipeline, tmp_path: Path) -> None:
    """A contract gains a column: old rows stay as they are and read it as null, new ones have it, everything adds up."""
    settings = pipeline.settings
    old = [line(title=f"Page {n}", timestamp=1_772_366_400 + n).replace(ID, f"old-{n}") for n in range(60)]
    new = [line(title=f"Page {n}", timestamp=1_772_366_400 + n).replace(ID, f"new-{n}") for n in range(30, 90)]
    produce(settings.bootstrap_servers, judged(old))
    assert all(report.passed for report in pipeline.cycle())
    before = {
        spec: (_field_ids(pipeline.lake, spec), _by_id(pipeline.rows(spec)), pipeline.lake.state(spec).head_id())
        for spec in (RAW_EVENTS, CLEANED_EVENTS)
    }

    produce(settings.bootstrap_servers, judged(new))
    next_version = _next_version(tmp_path / "next")
    done = subprocess.run(
        [sys.executable, "-c", _CYCLE],
        cwd=next_version,
        env={**os.environ, **child_environment(settings), "PYTHONPATH": str(next_version)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]

    for spec, (ids, rows, snapshot) in before.items():
        assert ids.items() <= _field_ids(pipeline.lake, spec).items()
        after = _by_id(pipeline.rows(spec))
        assert {event_id: after[event_id] for event_id in rows} == {
            event_id: {**row, "notify_url": None} for event_id, row in rows.items()
        }
        fresh = [row["notify_url"] for event_id, row in after.items() if event_id.startswith("new-")]
        assert fresh == [json.loads(line())["notify_url"]] * len(new)
        # the snapshot of before is what it was, also to the newer version, which finds no difference but the new rows
        then, now = (read_table(pipeline.ctx.spark, spec, at).select(*spec.column_names) for at in (snapshot, None))
        assert then.count() == len(rows)
        assert then.exceptAll(now).count() == 0
        shown = wikistream(
            *("diff", spec.identifier, str(snapshot), "main"),
            settings=settings,
            cwd=next_version,
            PYTHONPATH=str(next_version),
        )
        assert f": {len(new)} added, 0 removed, 0 changed" in shown.stdout, shown.stderr
    expected = oracle.Gold(oracle.silver_rows(oracle.bronze_rows(old + new, None)), pipeline.ctx.user_key)
    for spec in GOLD_TABLES:
        oracle.assert_same_rows(pipeline.rows(spec), getattr(expected, spec.name)(), spec.key)

    # and the older version, which does not know the column, keeps its hands off
    refused = wikistream("tables", settings=settings)
    assert refused.returncode == 1
    assert refused.stderr.strip().startswith("error: bronze.raw_events was made by another version of WikiStream")
    assert len(refused.stderr.strip().splitlines()) == 1


def _field_ids(lake: Lakehouse, spec: TableSpec) -> dict[str, int]:
    return {field.name: field.field_id for field in lake.table(spec).schema().fields}


def _by_id(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["event_id"]: row for row in rows}
