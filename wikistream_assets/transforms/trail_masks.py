"""What hides people in old rows of the audit trail."""

from collections.abc import Collection

from pyspark.sql import DataFrame
from pyspark.sql import functions as sf

from wikistream_assets.transforms.pseudonyms import keyed_hash


def mask_failing_keys(rows: DataFrame, key: bytes, naming: Collection[str]) -> DataFrame:
    """``dq_audit.failing_rows``: hidden keys of the tables ``naming``, whose keys name people; all others name nobody."""
    named = sf.col("table_name").isin(list(naming)) & ~sf.col("failing_key").rlike(r"\Akey-[0-9a-f]{16}\z")
    hidden = sf.concat(sf.lit("key-"), keyed_hash(sf.col("failing_key"), key))
    return rows.withColumn("failing_key", sf.when(named, hidden).otherwise(sf.col("failing_key")))


def mask_decisions(rows: DataFrame) -> DataFrame:
    """``dq_audit.gate_decisions``: the condition that named rows is gone; who decided what, and why, stays."""
    return rows.withColumn("predicate", sf.lit(None).cast("string"))
