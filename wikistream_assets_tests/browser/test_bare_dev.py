"""Bare ``dagster dev`` in a fresh checkout, with and without a demo before: what a newcomer sees and clicks, in Chromium."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from playwright.sync_api import Page

from wikistream_assets.embedded import services
from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS, DEAD_LETTER, GOLD_TABLES, QUARANTINE, RAW_EVENTS
from wikistream_assets_tests.cli.runner import wikistream
from wikistream_assets_tests.conftest import SettingsFactory, child_environment, free_port, wait_until
from wikistream_assets_tests.webserver import answers, graphql

pytestmark = [pytest.mark.browser, pytest.mark.e2e, pytest.mark.long]

SECONDS = 900.0
TICKS = """{ sensorsOrError(repositorySelector: {repositoryName: "__repository__", repositoryLocationName: "wikistream"}) {
  ... on Sensors { results { name sensorState { status ticks(limit: 3) { status skipReason error { message } } } } }
} }"""
RUNS = "{ runsOrError { ... on Runs { results { runId jobName status } } } }"
NEED_THE_PIPELINE = {"cycle_loop", "bronze_freshness", "lag_alerts", "producer_alerts"}


class Dev:
    """``dagster dev`` in a folder that has a workspace and nothing else."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        port = free_port()
        self.fresh = not settings.root.exists()
        self.address = f"http://127.0.0.1:{port}"
        shutil.copy(Path(__file__).parents[2] / "workspace.yaml", folder)
        environment = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
        self._log = (folder / "dev.log").open("w")
        self.process = subprocess.Popen(
            [str(Path(sys.executable).parent / "dagster"), "dev", "-p", str(port)],
            cwd=folder,
            env={**environment, **child_environment(settings)},
            stdout=self._log,
            stderr=self._log,
        )

    def all_have_ticked(self) -> dict[str, list[dict[str, Any]]] | None:
        """The newest ticks, done ones, of each sensor that is on; None before each has one."""
        found = graphql(self.address, TICKS)["sensorsOrError"]["results"]
        ticked = {
            it["name"]: [tick for tick in it["sensorState"]["ticks"] if tick["status"] != "STARTED"]
            for it in found
            if it["sensorState"]["status"] == "RUNNING"
        }
        return ticked if all(ticked.values()) else None

    def runs(self, job: str) -> list[dict[str, str]]:
        """The job's runs, newest first; maintenance comes by its own schedule."""
        return [run for run in graphql(self.address, RUNS)["runsOrError"]["results"] if run["jobName"] == job]

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(120)
            except subprocess.TimeoutExpired:
                for child in psutil.Process(self.process.pid).children(recursive=True):
                    child.kill()
                self.process.kill()
                self.process.wait()
        self._log.close()


@pytest.fixture(params=["fresh", "after a demo"])
def dev(
    request: pytest.FixtureRequest, settings_factory: SettingsFactory, tmp_path: Path
) -> Iterator[tuple[Dev, Settings]]:
    folder = tmp_path / "checkout"
    folder.mkdir()
    settings = settings_factory(home=folder / ".wikistream")
    if request.param == "after a demo":
        demo = wikistream("demo", "--events", "3000", settings=settings)
        assert demo.returncode == 0, demo.stderr
    dev = Dev(settings, folder)
    try:
        wait_until(lambda: answers(dev.address), SECONDS)
        yield dev, settings
    finally:
        dev.stop()
        services.down(settings)


def rows(settings: Settings) -> dict[str, int]:
    lake = local_lake(settings)
    heads = {
        spec.identifier: lake.state(spec).head()
        for spec in (RAW_EVENTS, DEAD_LETTER, CLEANED_EVENTS, QUARANTINE, *GOLD_TABLES)
    }
    return {name: head.total_records if head else 0 for name, head in heads.items()}


def test_ticks_are_skipped_and_materialize_all_works(dev: tuple[Dev, Settings], page: Page, screenshots: Path) -> None:
    ui, settings = dev
    name = "fresh" if ui.fresh else "after-a-demo"
    ticked = wait_until(ui.all_have_ticked, SECONDS)
    assert set(ticked) >= NEED_THE_PIPELINE
    assert {tick["status"] for ticks in ticked.values() for tick in ticks} == {"SKIPPED"}
    for sensor in NEED_THE_PIPELINE:
        assert all("'make up'" in tick["skipReason"] for tick in ticked[sensor]), sensor
    assert ui.runs("cycle") == []

    before = rows(settings)
    # Dagster's invitation, which a machine shows once
    page.add_locator_handler(page.get_by_role("button", name="Skip"), lambda button: button.click())
    page.goto(f"{ui.address}/asset-groups")
    page.get_by_role("button", name="Materialize all").first.click()
    (run,) = wait_until(lambda: ui.runs("__ASSET_JOB"), SECONDS)
    page.goto(f"{ui.address}/runs/{run['runId']}")
    wait_until(lambda: ui.runs("__ASSET_JOB")[0]["status"] in ("SUCCESS", "FAILURE"), SECONDS)
    page.get_by_text("RUN_SUCCESS").first.wait_for(timeout=60_000)
    page.screenshot(path=screenshots / f"bare-{name}-run.png")
    assert page.get_by_text("STEP_FAILURE").count() == 0
    assert ui.runs("__ASSET_JOB")[0]["status"] == "SUCCESS"

    after = rows(settings)
    if ui.fresh:
        assert all(after[spec.identifier] for spec in (RAW_EVENTS, CLEANED_EVENTS, *GOLD_TABLES)), after
    else:
        assert after == before, "the demo had read everything"
    assert after[RAW_EVENTS.identifier] == after[CLEANED_EVENTS.identifier] + after[QUARANTINE.identifier]
    page.goto(f"{ui.address}/assets/gold/hourly_stats")
    page.get_by_text(f"{after['gold.hourly_stats']:,}").first.wait_for(timeout=60_000)
    page.screenshot(path=screenshots / f"bare-{name}-asset.png")
    assert [service.state for service in services.status(settings)] == ["STOPPED"], "the broker was lent for the run"

    ticked = wait_until(ui.all_have_ticked, SECONDS)
    assert {tick["status"] for ticks in ticked.values() for tick in ticks} == {"SKIPPED"}
    assert ui.runs("cycle") == []
    ui.stop()
    # Dagster's code servers end by themselves, once nobody has asked them for a while.
    wait_until(lambda: not [it for it in psutil.process_iter(["cwd"]) if it.info["cwd"] == str(settings.root.parent)])
