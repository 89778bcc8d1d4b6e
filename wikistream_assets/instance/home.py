"""The Dagster instance that belongs to a home."""

import dagster as dg

from wikistream_assets.embedded.dagster_home import prepare_dagster_home
from wikistream_assets.settings import Settings


def dagster_instance(settings: Settings) -> dg.DagsterInstance:
    """The Dagster instance whose history the UI of ``make dev`` shows. The caller closes it."""
    prepare_dagster_home(settings)
    return dg.DagsterInstance.get()
