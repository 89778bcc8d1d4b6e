"""The audit tables in the lineage graph. They have no step of their own: each gate writes them and reports it."""

import dagster as dg

from wikistream_assets.asset_factory import asset_spec
from wikistream_assets.tables import FAILING_ROWS, GATE_DECISIONS, PROFILE_METRICS, QUALITY_RESULTS

audit_trail: list[dg.AssetSpec] = [
    asset_spec(spec, kinds=("iceberg",)) for spec in (QUALITY_RESULTS, PROFILE_METRICS, FAILING_ROWS, GATE_DECISIONS)
]
