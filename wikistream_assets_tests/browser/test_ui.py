"""The Dagster UI in headless Chromium: assets, lineage, and the page of a failed gate's check."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page

from wikistream_assets.definitions import defs
from wikistream_assets.instance.home import dagster_instance
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.tables import RAW_EVENTS
from wikistream_assets.streams.registry import ALL_TABLES
from wikistream_assets_tests.conftest import child_environment, wait_until
from wikistream_assets_tests.engine.gate_lakes import GateLake
from wikistream_assets_tests.quality.samples import clean_rows
from wikistream_assets_tests.webserver import answers, graphql

pytestmark = [pytest.mark.browser, pytest.mark.spark]

HOSTILE_ID = "<img src=x onerror='window.executed=1'>"
"""The id of the event that closes the gate: the stream may say anything, the page shows it and runs none of it."""


@pytest.fixture
def ui(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The UI of a home with one good cycle and a second one that the Bronze gate has stopped."""
    for name, value in child_environment(settings).items():
        monkeypatch.setenv(name, value)
    gates = GateLake(settings)
    rows = clean_rows(RAW_EVENTS)
    with dagster_instance(settings) as instance:
        definitions = defs()
        gates.add_bronze(rows[:700])
        for job in ("gates", "silver", "gold"):
            assert definitions.resolve_job_def(job).execute_in_process(instance=instance).success
        rows[750] |= {"event_type": "flow!", "event_id": HOSTILE_ID}
        gates.add_bronze(rows[700:])
        stopped = definitions.resolve_job_def("gates").execute_in_process(instance=instance, raise_on_error=False)
        assert not stopped.success
    address = f"http://127.0.0.1:{settings.dagster_port}"
    log = (settings.root / "webserver.log").open("w")
    server = subprocess.Popen(
        [
            sys.executable, "-m", "wikistream_assets.instance.ui_server", "--port", str(settings.dagster_port),
            "--workspace", str(Path(__file__).parents[2] / "workspace.yaml"),
        ],
        env={**os.environ, **child_environment(settings)},
        stdout=log,
        stderr=log,
    )  # fmt: skip
    try:
        wait_until(lambda: answers(address))
        yield address
    finally:
        server.terminate()
        server.wait(30)
        log.close()


def test_people_see_tables_lineage_and_why_a_gate_stopped(ui: str, page: Page, screenshots: Path) -> None:
    listed = graphql(ui, "{ assetNodes { assetKey { path } } }")["assetNodes"]
    assert sorted(".".join(node["assetKey"]["path"]) for node in listed) == sorted(t.identifier for t in ALL_TABLES)

    page.goto(f"{ui}/assets")
    for spec in ALL_TABLES:
        page.get_by_text(f"{spec.namespace} / {spec.name}").first.wait_for(timeout=60_000)
    page.wait_for_timeout(3_000)  # the states follow the names
    page.screenshot(path=screenshots / "assets.png")

    page.set_viewport_size({"width": 1600, "height": 1200})
    page.goto(f"{ui}/asset-groups")
    page.get_by_text("quarantine").first.wait_for(timeout=60_000)
    page.wait_for_timeout(2_000)
    page.keyboard.press("Alt+e")  # expands all groups and notes them in the address
    page.wait_for_url("**expanded=**")
    page.goto(page.url)  # drawn anew, it fits the page
    for name in ("raw_events", "cleaned_events", "hourly_stats", "risk_scores", "entity_trends", "quality_results"):
        page.get_by_text(name, exact=True).first.wait_for(timeout=60_000)
    page.wait_for_timeout(3_000)  # the graph slides into place
    page.screenshot(path=screenshots / "lineage.png")

    page.set_viewport_size({"width": 1600, "height": 900})
    page.goto(f"{ui}/assets/bronze/raw_events?view=checks&checkDetail=event_type_valid")
    page.get_by_text("failing keys").first.wait_for(timeout=60_000)
    assert page.get_by_text("records failed").first.is_visible()
    assert page.get_by_text("Failed").first.is_visible()
    page.screenshot(path=screenshots / "failed-check.png")

    page.get_by_text("Show JSON").first.click()
    page.get_by_text(HOSTILE_ID).first.wait_for(timeout=60_000)
    page.wait_for_timeout(1_000)  # what would be executed has been by then
    assert page.evaluate("window.executed") is None
    page.screenshot(path=screenshots / "failing-keys.png")
