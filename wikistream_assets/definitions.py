"""The code location: everything under ``defs``, with the resources of this environment."""

from functools import cache
from pathlib import Path

import alembic.util
import dagster as dg

from wikistream_assets.resources.choice import resources_for
from wikistream_assets.settings import load_settings

# Dagster opens its databases anew for each tick of a sensor; each time Alembic looks up the same folder and registers a clean-up
# at the end of the process, and a code server grows by 4 KiB a tick, for ever.
alembic.util.coerce_resource_to_filename = cache(alembic.util.coerce_resource_to_filename)


@dg.definitions
def defs() -> dg.Definitions:
    """All assets, checks and jobs. Steps run in one process, so that a run shares one Spark session."""
    return dg.Definitions.merge(
        dg.load_from_defs_folder(path_within_project=Path(__file__).parent),
        dg.Definitions(resources=resources_for(load_settings()), executor=dg.in_process_executor),
    )
