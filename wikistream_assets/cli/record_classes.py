"""Record which classes Spark loads, so that every later JVM maps them from one file instead of reading and checking them again.

Spark, Iceberg and Deequ load some 15,000 classes, one at a time, before a first batch is through. Java's class-data sharing keeps
them as they are in memory. The archive is what one small demo has loaded; ``embedded.spark`` uses it when it is there. Without
it, or with one that no longer fits, everything works and starts more slowly. Run once by set-up:
``python -m wikistream_assets.cli.record_classes``.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from shutil import rmtree
from typing import Final

from producer.exceptions import ProducerError
from wikistream_assets.cli.demo_run import run_demo
from wikistream_assets.embedded.jars import to_stderr
from wikistream_assets.embedded.spark import jvm_process, local_session
from wikistream_assets.exceptions import SetupError, WikistreamError
from wikistream_assets.machine.java import JavaRuntime, class_archive, find_java
from wikistream_assets.machine.ports import free_port
from wikistream_assets.machine.variables import adopt, built
from wikistream_assets.settings import Settings, load_settings

_EVENTS: Final = 300
_WORK_PREFIX: Final = ".recording-"
_DUMP_SECONDS: Final = 300.0


def record() -> Path:
    """Run a small demo in its own home and leave its JVM's classes in ``class_archive()``; returns that.

    Raises:
        SetupError: the demo failed, or Java wrote no archive.
        WikistreamError, ProducerError: the demo could not be run.
    """
    archive = class_archive()
    archive.unlink(missing_ok=True)  # of other packages, maybe; a JVM that has mapped it keeps it
    archive.parent.mkdir(parents=True, exist_ok=True)
    for stale in archive.parent.glob(f"{_WORK_PREFIX}*"):  # of a killed set-up
        rmtree(stale, ignore_errors=True)
    _ensure_base(find_java())
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix=_WORK_PREFIX) as folder:
        recorded = Path(folder) / archive.name
        settings = _of_its_own(Path(folder) / "home")
        # The first call starts this process's one JVM, in which the demo then runs.
        local_session(settings, jvm_options=(f"-XX:ArchiveClassesAtExit={recorded}", "-Xlog:cds*=off"))
        if not run_demo("synthetic", _EVENTS, settings, to_stderr).ok:
            raise SetupError("the small demo failed: 'make demo' shows more")
        to_stderr("writing the archive ..")
        _end_jvm(settings)
        if not recorded.is_file():
            raise SetupError(f"Java wrote no class archive to {archive}")
        _flush(recorded)
        recorded.replace(archive)
    return archive


def _of_its_own(home: Path) -> Settings:
    """Settings that reach nothing of the user's, put into the environment, as Dagster's definitions read them from there."""
    for name in [name for name in os.environ if name.startswith("WIKISTREAM_") and name != "WIKISTREAM_CACHE"]:
        del os.environ[name]
    os.environ["WIKISTREAM_HOME"] = str(home)
    for name in ("WIKISTREAM_KAFKA_PORT", "WIKISTREAM_KAFKA_CONTROLLER_PORT"):
        os.environ[name] = str(free_port())
    return load_settings()


def _ensure_base(java: JavaRuntime) -> None:
    """Make the archive of Java's own classes, which ours stands on: the bundled Java comes without it."""
    if not (java.home / "lib" / "server" / "classes.jsa").exists():
        subprocess.run(
            [java.executable, "-Xshare:dump"],
            env=built(os.environ),
            capture_output=True,
            timeout=_DUMP_SECONDS,
            check=False,
        )


def _end_jvm(settings: Settings) -> None:
    """End the JVM in an orderly way, as only such an end writes the archive, and wait for it."""
    session = local_session(settings)
    jvm = jvm_process(session)
    session.stop()
    if jvm.stdin is not None:
        jvm.stdin.close()  # what Spark's gateway waits for
    jvm.wait(_DUMP_SECONDS)


def _flush(file: Path) -> None:
    """Have the whole file on disk: half of one after a loss of power would crash each JVM that maps it."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def main(arguments: list[str] | None = None) -> int:
    """Record; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m wikistream_assets.cli.record_classes", description=__doc__)
    parser.parse_args(arguments)
    adopt()
    try:
        archive = record()
    except (WikistreamError, ProducerError) as error:
        to_stderr(f"error: {error}")
        return 1
    to_stderr(f"{archive.stat().st_size / 2**20:.0f} MiB in {archive}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
