"""The audit tables in the lineage graph. They have no step of their own: each gate writes them and reports it."""

import dagster as dg

from wikistream_assets.components.events import asset_spec
from wikistream_assets.settings import load_settings
from wikistream_assets.tables.dq_audit import FAILING_ROWS, GATE_DECISIONS, PROFILE_METRICS, QUALITY_RESULTS

audit_trail: list[dg.AssetSpec] = [
    *(
        asset_spec(spec, kinds=("iceberg",), fresh_seconds=load_settings().tables_fresh_seconds)
        for spec in (QUALITY_RESULTS, PROFILE_METRICS, FAILING_ROWS)
    ),
    # written when a person decides, so it is never stale
    asset_spec(GATE_DECISIONS, kinds=("iceberg",)),
]
