"""Where Spark runs: one local JVM per process, one session per lake.

The JVM and its SparkContext are started once; each home gets a session of its own on it, because the Iceberg catalog is
bound to the session's configuration. That is why a test suite, or a Dagster process, pays for one start only.
"""

import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from shlex import quote
from typing import Final

from py4j.java_gateway import JavaObject
from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from wikistream_assets.embedded.gateway import start_jvm
from wikistream_assets.embedded.jars import ensure_jars
from wikistream_assets.exceptions import SetupError, WriterBusyError
from wikistream_assets.lake.lakehouse import CATALOG_NAME
from wikistream_assets.lake.local_files import location_of
from wikistream_assets.machine.causes import advice_for, cause_of
from wikistream_assets.machine.java import class_archive
from wikistream_assets.machine.limits import ensure_open_files
from wikistream_assets.settings import Settings

_ORPHAN_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.2

_LOG_CONFIG: Final = Path(__file__).with_name("log4j2.properties")


def local_session(settings: Settings, *, lasting: bool = False, jvm_options: Sequence[str] = ()) -> SparkSession:
    """The session on this process's JVM whose catalog ``wikistream`` is the lake of ``settings``; one for each lake.

    Args:
        settings: the home, and the size of the session.
        lasting: the JVM will run many cycles or batches. Looked at by the call that starts the JVM, ignored by later ones.
        jvm_options: more of Java's options, ignored by later calls too.

    Raises:
        SetupError: no Java 17, too few open files allowed, the jars cannot be fetched, or Spark does not start.
    """
    return _session(_application(settings, lasting, jvm_options), settings.catalog_db, settings.warehouse)


@cache  # a session never closes its catalog's connections: one for each step of each cycle would pile up
def _session(application: SparkSession, catalog_db: Path, warehouse: Path) -> SparkSession:
    session = application.newSession()
    catalog = f"spark.sql.catalog.{CATALOG_NAME}"
    session.conf.set(catalog, "org.apache.iceberg.spark.SparkCatalog")
    session.conf.set(f"{catalog}.catalog-impl", "org.apache.iceberg.jdbc.JdbcCatalog")
    # Without write-ahead logging every second commit fails with SQLITE_BUSY.
    session.conf.set(f"{catalog}.uri", f"jdbc:sqlite:{catalog_db.as_uri()}?journal_mode=WAL&busy_timeout=30000")
    session.conf.set(f"{catalog}.warehouse", location_of(warehouse))
    session.conf.set(f"{catalog}.jdbc.schema-version", "V1")
    # Tables change under this session (PyIceberg moves tags and branches): never answer from a cache.
    session.conf.set(f"{catalog}.cache-enabled", "false")
    return session


def _application(settings: Settings, lasting: bool, jvm_options: Sequence[str]) -> SparkSession:
    ensure_open_files()
    archive = class_archive()
    start_jvm(
        settings,
        # On Java's own class path, not in spark.jars: only from there classes can come out of an archive.
        ensure_jars("spark", settings),
        [
            # Little of a batch or cycle stays alive. This collector's heap shrinks back to that; the parallel one fills all it
            # may have, to save some 6 % of a cycle's time (bench.cycle). A JVM that has run out of memory may lack any of its
            # threads: it ends instead.
            *("-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError"),
            # Java's optimizing compiler takes half of a first cycle's processor time and pays from the fourth cycle on. Without
            # it Java would reserve 48 MiB for compiled code instead of 240; a cycle fills them, and Spark then breaks.
            *(() if lasting else ("-XX:TieredStopAtLevel=1",)),
            "-XX:ReservedCodeCacheSize=240m",
            f"-Dlog4j2.configurationFile={_LOG_CONFIG.as_uri()}",
            *((f"-XX:SharedArchiveFile={archive}", "-Xlog:cds*=off") if archive.exists() else ()),
            *jvm_options,
        ],
    )
    builder = (
        SparkSession.builder.master(f"local[{settings.spark_cores}]")
        .appName("wikistream")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        # There is no UI to show what Spark would keep of its last thousand jobs, stages and plans.
        .config("spark.ui.retainedJobs", "50")
        .config("spark.ui.retainedStages", "50")
        .config("spark.ui.retainedTasks", "500")
        .config("spark.sql.ui.retainedExecutions", "10")
        .config("spark.sql.extensions", "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions")
        .config("spark.sql.session.timeZone", "UTC")
        # The data of one cycle fits a few tasks; the default of 200 would be 200 nearly empty ones.
        .config("spark.sql.shuffle.partitions", str(settings.spark_cores))
        # A hash table takes a whole page, of 8 MiB if Spark may choose. One that was broadcast stays in the old generation until
        # its next collection, and each batch leaves some.
        .config("spark.buffer.pageSize", "1m")
        # A cycle's queries become some 300 classes. With the default of 100 none would be left when the next cycle asks for it:
        # each would be compiled again, and would start again as code that Java has not optimized yet.
        .config("spark.sql.codegen.cache.maxEntries", "1000")
        .config("spark.sql.streaming.metricsEnabled", "false")
        # The default one starts eight processes (readlink) for each batch. What it does better nobody needs here: a checkpoint is
        # thrown away at the next start.
        .config(
            "spark.sql.streaming.checkpointFileManagerClass",
            "org.apache.spark.sql.execution.streaming.FileSystemBasedCheckpointFileManager",
        )
        # What is cached here is read two or three times and dropped: trying out encodings on it costs more than it saves.
        .config("spark.sql.inMemoryColumnarStorage.compressed", "false")
    )
    try:
        session: SparkSession = builder.getOrCreate()
    except Py4JJavaError as error:
        cause = cause_of(str(error))
        raise SetupError(f"Spark does not start ({cause}): {advice_for(cause) or 'run make doctor'}") from error
    session.sparkContext.setLogLevel("ERROR")
    return session


def jvm_process(spark: SparkSession) -> subprocess.Popen[bytes]:
    """The process that is the session's JVM, a child of this one."""
    gateway = spark.sparkContext._gateway
    assert gateway is not None  # noqa: S101  # a session has a JVM
    process: subprocess.Popen[bytes] = gateway.proc
    return process


@contextmanager
def lock_in_jvm(spark: SparkSession, path: Path) -> Iterator[None]:
    """Hold the lock file ``path`` in the JVM, the process that really writes.

    A lock that Python holds is free as soon as Python is killed, but its JVM needs a moment to notice and may commit in it. The
    next writer must not look at the table before: it waits here until that JVM is gone.

    Raises:
        WriterBusyError: another JVM holds the lock and does not end.
    """
    jvm = spark.sparkContext._jvm
    assert jvm is not None  # noqa: S101  # a session has a JVM
    file = jvm.java.io.RandomAccessFile(str(path), "rw")
    try:
        deadline = time.monotonic() + _ORPHAN_SECONDS
        while not _try_lock(file):
            if time.monotonic() > deadline:
                raise WriterBusyError(
                    f"a Java process still holds {path}: find it with 'fuser {quote(str(path))}' and stop it"
                )
            threading.Event().wait(_POLL_SECONDS)
        yield
    finally:
        file.close()


def _try_lock(file: JavaObject) -> bool:
    try:
        return file.getChannel().tryLock() is not None
    except Py4JJavaError as error:
        if "OverlappingFileLockException" in error.java_exception.getClass().getName():
            return False  # held by another session of this JVM
        raise
