"""Who may write: one run at a time for each layer, even when a run's Python is gone and its JVM is not.

Maintenance and rollback move the main branch of the same tables as a run does. They and a run wait for each other, so neither
fails because of the other; two runs, or two maintenances, of one layer refuse each other instead. Bronze and the audit trail are
only ever appended to, which commutes with what maintenance does there: they have no main to wait for. Leases are named
``<stream>.<layer>``.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pyspark.sql import SparkSession

from wikistream_assets.embedded.home import is_locked, writer_lock
from wikistream_assets.embedded.spark import lock_in_jvm
from wikistream_assets.machine.locks import exclusive
from wikistream_assets.settings import Settings


@dataclass(frozen=True)
class LocalLeases:
    """The leases of a home: files in its folder ``run`` that the operating system locks."""

    settings: Settings

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Hold the lock ``name``.

        Raises:
            WriterBusyError: another process holds it.
        """
        with writer_lock(self.settings, name):
            yield

    def is_held(self, name: str) -> bool:
        return is_locked(self.settings, name)

    @contextmanager
    def only_run(self, spark: SparkSession, name: str) -> Iterator[None]:
        """Hold the lock ``name``, in Python and in the JVM.

        The JVM of a killed Python may still commit for a moment; its lock is free only when it is gone.

        Raises:
            WriterBusyError: another process holds the lock.
        """
        with writer_lock(self.settings, name), lock_in_jvm(spark, self._jvm_lock(name)):
            yield

    @contextmanager
    def no_jvm(self, name: str) -> Iterator[None]:
        """Hold the lock that a JVM holds while it writes ``name``, without having one; wait for one that outlives its Python."""
        with self._jvm_lock(name).open("a") as file:
            fcntl.lockf(file, fcntl.LOCK_EX)  # the kind of lock that Java takes, and not flock's
            yield

    @contextmanager
    def main_of(self, name: str) -> Iterator[None]:
        """Hold the right to move main of a layer's tables; wait while a run, maintenance or a rollback holds it."""
        with exclusive(self.settings.root / "run" / f"{name}.main.lock"):
            yield

    @contextmanager
    def only_maintenance(self, name: str) -> Iterator[None]:
        """Be the only one to look after a layer's tables, to compact, expire, mask or roll back.

        Raises:
            WriterBusyError: another process is at it.
        """
        with writer_lock(self.settings, f"{name}.maintenance"):
            yield

    def _jvm_lock(self, name: str) -> Path:
        return self.settings.root / "run" / f"{name}.jvm.lock"
