"""One run at a time for each layer, even when a run's Python is gone and its JVM is not."""

from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.sql import SparkSession

from wikistream_assets.embedded.home import writer_lock
from wikistream_assets.resources.spark import lock_in_jvm
from wikistream_assets.settings import Settings


@contextmanager
def only_run(spark: SparkSession, settings: Settings, name: str) -> Iterator[None]:
    """Hold the lock ``name`` of this home, in Python and in the JVM.

    The JVM of a killed Python may still commit for a moment; its lock is free only when it is gone.

    Raises:
        WriterBusyError: another process holds the lock.
    """
    with writer_lock(settings, name), lock_in_jvm(spark, settings.root / "run" / f"{name}.jvm.lock"):
        yield
