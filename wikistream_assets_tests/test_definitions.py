"""The code location: its assets, checks and jobs are exactly those of the contracts."""

import atexit
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.freshness import TimeWindowFreshnessPolicy
from dagster._core.execution.api import create_execution_plan

from wikistream_assets.components.events import AFTER_PASSED_GATES, SOURCE_WITHOUT_GAP
from wikistream_assets.definitions import defs
from wikistream_assets.exceptions import ConfigurationError
from wikistream_assets.instance.cycles import CYCLE, STEPS
from wikistream_assets.instance.home import dagster_instance
from wikistream_assets.resources.choice import resources_for
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.tables import GOLD_TABLES
from wikistream_assets.streams.registry import ALL_TABLES
from wikistream_assets.tables.dq_audit import GATE_DECISIONS

pytestmark = pytest.mark.local

_ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def graph() -> AssetGraph:
    return defs().resolve_asset_graph()


def test_every_table_is_an_asset_and_nothing_else_is(graph: AssetGraph) -> None:
    assert {key.to_user_string() for key in graph.get_all_asset_keys()} == {
        "bronze/raw_events",
        "bronze/dead_letter",
        "silver/cleaned_events",
        "quarantine/cleaned_events",
        "gold/hourly_stats",
        "gold/risk_scores",
        "gold/entity_trends",
        "gold/daily_analytics_summary",
        "dq_audit/quality_results",
        "dq_audit/profile_metrics",
        "dq_audit/failing_rows",
        "dq_audit/gate_decisions",
    }


def test_every_rule_is_a_blocking_check_of_the_same_name(graph: AssetGraph) -> None:
    rules = {(f"{spec.namespace}/{spec.name}", rule.name) for spec in ALL_TABLES for rule in spec.rules}
    checks = {(key.asset_key.to_user_string(), key.name): graph.get_check_spec(key) for key in graph.asset_check_keys}
    assert not checks.pop(("bronze/raw_events", SOURCE_WITHOUT_GAP)).blocking, "what was never received cannot be gated"
    assert checks.keys() == rules
    assert all(check.blocking for check in checks.values())


def test_lineage_is_that_of_the_contracts(graph: AssetGraph) -> None:
    for spec in ALL_TABLES:
        parents = {key.to_user_string() for key in graph.get(dg.AssetKey([spec.namespace, spec.name])).parent_keys}
        assert parents == {name.replace(".", "/") for name in spec.upstream}


def test_assets_show_their_columns_owner_and_description(graph: AssetGraph) -> None:
    for spec in ALL_TABLES:
        node = graph.get(dg.AssetKey([spec.namespace, spec.name]))
        schema = node.metadata["dagster/column_schema"]
        assert [column.name for column in schema.columns] == list(spec.column_names)
        assert all(column.description for column in schema.columns)
        assert node.owners == [spec.owner]
        assert node.description == spec.description


def test_every_table_has_its_freshness_policy(graph: AssetGraph) -> None:
    for spec in ALL_TABLES:
        policy = graph.get(dg.AssetKey([spec.namespace, spec.name])).freshness_policy
        if spec == GATE_DECISIONS:
            assert policy is None, "written when a person decides"
        else:
            assert isinstance(policy, TimeWindowFreshnessPolicy)
            seconds = 61 if spec.namespace == "bronze" else 600  # a batch each second, and a minute
            assert policy.fail_window.to_timedelta().total_seconds() == seconds


_PRINT_POLICIES = """
import json
from wikistream_assets.definitions import defs
nodes = [node for node in defs().resolve_asset_graph().asset_nodes if node.freshness_policy]
policies = {node.key.to_user_string(): node.freshness_policy.fail_window.to_timedelta().total_seconds() for node in nodes}
print(json.dumps(policies))
"""


def test_freshness_in_the_times_of_the_original() -> None:
    """Bronze: a batch each three minutes, in the table three minutes after it is due; end to end 35 minutes."""
    environment = {**os.environ, "WIKISTREAM_PROFILE": "source"}  # the policies are made when the modules are imported
    printed = subprocess.run([sys.executable, "-c", _PRINT_POLICIES], env=environment, capture_output=True, check=True)
    policies = json.loads(printed.stdout)
    expected = {f"{spec.namespace}/{spec.name}": 360 if spec.namespace == "bronze" else 2_100 for spec in ALL_TABLES}
    del expected["dq_audit/gate_decisions"]
    assert policies == expected


def test_what_is_published_behind_gates_may_follow_them_by_itself(graph: AssetGraph) -> None:
    for spec in ALL_TABLES:
        condition = graph.get(dg.AssetKey([spec.namespace, spec.name])).automation_condition
        assert (condition == AFTER_PASSED_GATES) == (spec.namespace in ("silver", "quarantine", "gold"))


def test_the_time_limit_is_that_of_a_step_and_no_runs() -> None:
    monitoring = yaml.safe_load((_ROOT / "wikistream_assets" / "embedded" / "dagster.yaml").read_text())[
        "run_monitoring"
    ]
    assert monitoring["enabled"]
    assert "max_runtime_seconds" not in monitoring
    for job in defs().resolve_all_job_defs():
        assert "dagster/max_runtime" not in job.tags, job.name
    assert len(create_execution_plan(defs().resolve_job_def(CYCLE)).get_steps_to_execute_by_level()) == STEPS


def test_jobs(graph: AssetGraph) -> None:
    definitions = defs()
    assert {job.name for job in definitions.resolve_all_job_defs() if not job.name.startswith("__")} == {
        "cycle",
        "bronze",
        "silver",
        "gold",
        "gates",
        "gate_decision",
        "redrive_dead_letters",
        "backfill",
        "maintenance",
        "masking",
        "purge_history",
    }


def test_the_cycle_runs_layer_after_layer_behind_the_gates() -> None:
    plan = defs().resolve_job_def("cycle").graph.dependency_structure
    upstream: dict[str, set[str]] = {}
    for consumer in ("bronze_gate", "silver_publish", "gold_publish"):
        outputs = plan.input_to_upstream_outputs_for_node(consumer).values()
        upstream[consumer] = {output.node_name for of_input in outputs for output in of_input}
    assert upstream["bronze_gate"] == {"bronze_drain"}
    assert upstream["silver_publish"] == {"bronze_drain", "bronze_gate"}
    assert upstream["gold_publish"] == {"silver_publish"}


def test_gold_is_one_step(graph: AssetGraph) -> None:
    keys = {dg.AssetKey([spec.namespace, spec.name]) for spec in GOLD_TABLES}
    definition = next(asset for asset in graph.assets_defs if keys <= set(asset.keys))
    assert not definition.can_subset


def test_all_files_name_the_same_module() -> None:
    workspace = yaml.safe_load((_ROOT / "workspace.yaml").read_text())
    cloud = yaml.safe_load((_ROOT / "dagster_cloud.yaml").read_text())
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["tool"]["dg"]["project"]
    assert (
        workspace["load_from"][0]["python_module"]["module_name"]
        == cloud["locations"][0]["code_source"]["module_name"]
        == project["code_location_target_module"]
        == "wikistream_assets.definitions"
    )


def test_an_environment_without_resources_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="WIKISTREAM_ENV=prod"):
        resources_for(Settings(env="prod", home=tmp_path))


def test_a_tick_leaves_nothing_behind(settings: Settings) -> None:
    """The code server opens Dagster's databases anew for each tick."""
    with dagster_instance(settings) as instance:
        reference = instance.get_ref()
    before = atexit._ncallbacks()
    for _ in range(3):
        with dg.DagsterInstance.from_ref(reference) as opened:
            assert opened.get_runs() == []
    assert atexit._ncallbacks() == before
