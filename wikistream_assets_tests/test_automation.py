"""Automation across runs: what follows upstream on its own does not pass a closed gate."""

from typing import Any

import dagster as dg
import pytest

from wikistream_assets.components.events import AFTER_PASSED_GATES

pytestmark = [
    pytest.mark.unit,
    # Dagster's own evaluation uses what Dagster calls beta
    pytest.mark.filterwarnings("ignore::dagster_shared.utils.warnings.BetaWarning"),
]


def requested(condition: dg.AutomationCondition[Any], passed: bool) -> int:
    """How many runs are asked for downstream, after upstream was materialized and its blocking check evaluated."""

    @dg.asset
    def upstream() -> None: ...

    @dg.asset_check(asset=upstream, blocking=True)
    def gate() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=passed, severity=dg.AssetCheckSeverity.ERROR)

    @dg.asset(deps=[upstream], automation_condition=condition)
    def downstream() -> None: ...

    definitions = dg.Definitions(assets=[upstream, downstream], asset_checks=[gate])
    with dg.DagsterInstance.ephemeral() as instance:
        dg.materialize([upstream, downstream], instance=instance)
        before = dg.evaluate_automation_conditions(definitions, instance)
        dg.materialize([upstream, gate], instance=instance, raise_on_error=False)
        return dg.evaluate_automation_conditions(definitions, instance, cursor=before.cursor).total_requested


def test_a_passed_gate_lets_downstream_follow() -> None:
    assert requested(AFTER_PASSED_GATES, passed=True) == 1


def test_a_closed_gate_does_not() -> None:
    assert requested(AFTER_PASSED_GATES, passed=False) == 0


def test_control_eager_alone_passes_a_closed_gate() -> None:
    assert requested(dg.AutomationCondition.eager(), passed=False) == 1
