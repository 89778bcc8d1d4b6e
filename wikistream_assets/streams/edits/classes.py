"""What the criteria say of a change: the region of its wiki, and whether it is large."""

from pyspark.sql import Column
from pyspark.sql import functions as sf

from wikistream_assets.quality.criteria import Criteria
from wikistream_assets.streams.edits import wikis


def classes(domain: Column, length_delta: Column, criteria: Criteria) -> dict[str, Column]:
    """The columns ``region``, ``is_large_deletion`` and ``is_large_addition``; unknown sizes are not large."""
    sizes = criteria.sizes
    return {
        "region": wikis.region(domain, criteria.regions),
        "is_large_deletion": sf.coalesce(length_delta < -sizes.large_deletion_bytes, sf.lit(False)),
        "is_large_addition": sf.coalesce(length_delta > sizes.large_addition_bytes, sf.lit(False)),
    }
