"""What the doctor really starts: Spark with a separate lake, and a broker. Nothing of the home is touched, nothing is left.

``python -m wikistream_assets.embedded.trial`` is the session's half, in a separate process, on the lake that its settings name.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from producer.paths import absolute
from producer.python import module_command
from producer.settings import ENV_PREFIX
from wikistream_assets.embedded import kafka
from wikistream_assets.embedded.home import open_home
from wikistream_assets.exceptions import BrokerError, SetupError, WikistreamError
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.machine.causes import advice_for, cause_of
from wikistream_assets.machine.java import scratch_folder, temporary_folder
from wikistream_assets.machine.ports import free_port
from wikistream_assets.machine.variables import built
from wikistream_assets.settings import Settings, load_settings

_SECONDS: Final = 180.0
_STOP_SECONDS: Final = 20.0
_WRITTEN: Final = ("TITLE", "İstanbul, Zürich, 東京")


def try_session(settings: Settings) -> str:
    """Start Spark, write an Iceberg table and read it; returns what was done.

    Raises:
        SetupError: it fails; the text has the cause.
    """
    started = time.monotonic()
    with _folder(settings) as folder:
        others = {name: value for name, value in built(os.environ).items() if not name.startswith(ENV_PREFIX)}
        environment = others | {
            f"{ENV_PREFIX}HOME": str(Path(folder) / "home"),
            f"{ENV_PREFIX}CACHE": str(absolute(settings.cache)),
            f"{ENV_PREFIX}SPARK_CORES": str(settings.spark_cores),
            f"{ENV_PREFIX}SPARK_MEMORY_MB": str(settings.spark_memory_mb),
        }
        command = module_command("wikistream_assets.embedded.trial")
        try:
            done = subprocess.run(
                command,
                env=environment,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise SetupError(
                f"Spark has done nothing for {_SECONDS:.0f} s: look at the machine's load and memory"
            ) from None
    if done.returncode != 0:
        cause = cause_of(done.stderr + done.stdout)
        raise SetupError(f"Spark does not work here ({cause}){_with(advice_for(cause))}")
    return f"started, wrote an Iceberg table and read it in {time.monotonic() - started:.0f} s"


def try_broker(settings: Settings) -> str:
    """Format a broker's folder, start the broker and ask it; returns what was done.

    Raises:
        BrokerError: it fails; the text has the cause.
    """
    started = time.monotonic()
    with _folder(settings) as folder:
        of_trial = Settings(
            home=Path(folder) / "home",
            cache=settings.cache,
            kafka_port=free_port(),
            kafka_controller_port=free_port(),
            kafka_heap_mb=settings.kafka_heap_mb,
        )
        open_home(of_trial)
        for path, text in kafka.files(of_trial).items():
            path.write_text(text, encoding="utf-8")
        kafka.format_storage(of_trial)
        said = Path(folder) / "output"
        with (
            said.open("wb") as output,
            subprocess.Popen(
                kafka.command(of_trial), cwd=of_trial.root, env=built(os.environ), stdout=output, stderr=output
            ) as broker,
        ):

            def still_alive() -> None:
                if broker.poll() is not None:
                    cause = cause_of(said.read_text(encoding="utf-8", errors="replace"))
                    raise BrokerError(f"the broker does not start here ({cause}){_with(advice_for(cause))}")

            try:
                Broker(f"127.0.0.1:{of_trial.kafka_port}").wait_ready(_SECONDS, still_alive)
            finally:
                broker.terminate()
                try:
                    broker.wait(_STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    broker.kill()
    return f"formatted, started and asked in {time.monotonic() - started:.0f} s"


def _folder(settings: Settings) -> tempfile.TemporaryDirectory[str]:
    beside = next(folder for folder in settings.root.parents if folder.is_dir())
    return tempfile.TemporaryDirectory(dir=scratch_folder(temporary_folder(), beside), prefix="wikistream-doctor-")


def _with(advice: str) -> str:
    return f": {advice}" if advice else ""


def main() -> int:
    """Try the session; returns the exit code."""
    from wikistream_assets.embedded.lake import local_lake
    from wikistream_assets.embedded.spark import local_session
    from wikistream_assets.lake.lakehouse import CATALOG_NAME

    try:
        settings = load_settings()
        open_home(settings)
        local_lake(settings)
        session = local_session(settings)
        table = f"{CATALOG_NAME}.bronze.trial"
        session.createDataFrame([_WRITTEN], "word string, places string").writeTo(table).using("iceberg").create()
        (row,) = session.sql(f"select lower(word), places from {table}").collect()  # noqa: S608  # our own names
    except WikistreamError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if tuple(row) != (_WRITTEN[0].lower(), _WRITTEN[1]):
        sys.stderr.write(f"error: a row came back changed: {row}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
