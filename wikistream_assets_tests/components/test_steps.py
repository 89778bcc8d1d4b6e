"""What Dagster shows of a step that ran in another process, as on EMR: read from the lake, whatever became of the process."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import pytest

from wikistream_assets.components.events import asset_key
from wikistream_assets.defs.bronze.assets import bronze_gate
from wikistream_assets.defs.silver.assets import silver
from wikistream_assets.engine import failpoints
from wikistream_assets.engine.step import Step
from wikistream_assets.exceptions import WikistreamError
from wikistream_assets.resources.local import LOCAL_RESOURCES
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS, QUARANTINE, RAW_EVENTS
from wikistream_assets_tests.conftest import child_environment
from wikistream_assets_tests.engine.gate_lakes import GateLake
from wikistream_assets_tests.quality.samples import clean_rows

pytestmark = pytest.mark.spark

SILVER_CHECKS = {(spec.identifier, rule.name) for spec in (CLEANED_EVENTS, QUARANTINE) for rule in spec.rules}


@dataclass
class Elsewhere:
    """A compute that runs a step as a separate process and knows nothing of it but its exit code."""

    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, step: Step) -> Mapping[str, Any]:
        command = [sys.executable, "-m", "wikistream_assets.engine.step", step.as_json()]
        done = subprocess.run(
            command, env={**os.environ, **self.environment}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise WikistreamError(f"the process ended with {done.returncode}: {done.stderr[-300:]}")
        return {}


class Idle:
    """A compute that says it is done and has done nothing."""

    def run(self, step: Step) -> Mapping[str, Any]:
        return {}


@pytest.fixture
def gates(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> GateLake:
    for name, value in child_environment(settings).items():
        monkeypatch.setenv(name, value)
    gates = GateLake(settings)
    gates.add_bronze(clean_rows(RAW_EVENTS)[:100])
    return gates


def materialize(asset: Any, compute: object) -> dg.ExecuteInProcessResult:
    """Run the asset, or the gate, with this compute and the other resources as they are."""
    only_checks = isinstance(asset, dg.AssetChecksDefinition)
    definitions = dg.Definitions(
        assets=[] if only_checks else [asset],
        asset_checks=[asset] if only_checks else [],
        resources={**LOCAL_RESOURCES, "compute": compute},
        executor=dg.in_process_executor,
        jobs=[dg.define_asset_job("it", selection=dg.AssetSelection.all() | dg.AssetSelection.all_asset_checks())],
    )
    return definitions.resolve_job_def("it").execute_in_process(raise_on_error=False)


def verdicts(result: dg.ExecuteInProcessResult) -> dict[tuple[str, str], bool]:
    found = result.get_asset_check_evaluations()
    return {(".".join(it.asset_key.path), it.check_name): it.passed for it in found}


def materialized(result: dg.ExecuteInProcessResult) -> set[dg.AssetKey]:
    return {event.asset_key for event in result.get_asset_materialization_events() if event.asset_key}


def told(result: dg.ExecuteInProcessResult) -> str:
    [failure] = result.filter_events(lambda event: event.is_step_failure)
    return str(failure.step_failure_data.user_failure_data.description)


def test_a_step_elsewhere_shows_its_checks_and_tables(gates: GateLake) -> None:
    gates.bronze_gate()
    result = materialize(silver, Elsewhere())
    assert result.success
    assert verdicts(result) == dict.fromkeys(SILVER_CHECKS, True)
    assert materialized(result) >= {asset_key(CLEANED_EVENTS), asset_key(QUARANTINE)}
    assert gates.rows("select count(*) from silver.cleaned_events") == [(100,)]
    version = gates.lake.state(CLEANED_EVENTS).newest_position()
    assert version is not None
    assert version.run_id == result.run_id


def test_a_step_that_dies_after_its_verdicts_keeps_every_check_and_its_run_is_red(gates: GateLake) -> None:
    gates.bronze_gate()
    result = materialize(
        silver, Elsewhere({"WIKISTREAM_FAILPOINT": failpoints.of_layer("silver", failpoints.AFTER_RESULTS)})
    )
    assert not result.success
    assert f"ended with {-signal.SIGKILL}" in told(result)
    assert verdicts(result) == dict.fromkeys(SILVER_CHECKS, True)
    assert materialized(result).isdisjoint({asset_key(CLEANED_EVENTS), asset_key(QUARANTINE)})
    again = materialize(silver, Elsewhere())
    assert again.success, "the verdicts are there already, and are not recorded twice"
    assert verdicts(again) == dict.fromkeys(SILVER_CHECKS, True)
    assert materialized(again) >= {asset_key(CLEANED_EVENTS), asset_key(QUARANTINE)}


@pytest.mark.parametrize("asset", [bronze_gate, silver], ids=["gate", "publish"])
def test_a_step_that_ran_nothing_is_red(gates: GateLake, asset: Any) -> None:
    if asset is silver:
        gates.bronze_gate()
    result = materialize(asset, Idle())
    assert not result.success
    assert "ran nothing" in told(result)
    assert verdicts(result) == {}


def test_a_step_with_nothing_to_do_shows_what_is_published(gates: GateLake) -> None:
    assert all(report.passed for report in gates.cycle())
    result = materialize(silver, Idle())
    assert result.success
    assert verdicts(result) == dict.fromkeys(SILVER_CHECKS, True)


def test_a_gate_that_closes_elsewhere_shows_the_keys(gates: GateLake) -> None:
    [bad] = [
        {**row, "event_id": f"bad-{n}", "event_date": "1999-01-01"}
        for n, row in enumerate(clean_rows(RAW_EVENTS)[100:101])
    ]
    gates.add_bronze([bad])
    result = materialize(bronze_gate, Elsewhere())
    assert not result.success
    [failed] = [it for it in result.get_asset_check_evaluations() if it.check_name == "event_date_valid"]
    assert not failed.passed
    assert failed.severity is dg.AssetCheckSeverity.ERROR
    assert failed.metadata["failing keys"].value == ["bad-0"]
    assert gates.lake.state(RAW_EVENTS).head("audited") is None
