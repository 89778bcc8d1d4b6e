"""The embedded broker: a single Kafka node (KRaft, broker and controller in one JVM) with all its data in the home.

It runs in the home and is given relative paths only. Not every path could stand in its ``.properties``: they are ISO-8859-1 with
escapes, and ``log.dirs`` is a list separated by commas.

Belongs here: its configuration files, its command line, formatting its storage once. Does not belong here: keeping it running
(``services``) and talking to it (``kafka.broker``).
"""

import base64
import os
import subprocess
import uuid
from pathlib import Path
from typing import Final

from wikistream_assets.embedded.jars import Report, ensure_jars
from wikistream_assets.exceptions import BrokerError
from wikistream_assets.kafka.broker import max_message_bytes
from wikistream_assets.machine.causes import advice_for, cause_of
from wikistream_assets.machine.java import find_java, java_options, scratch_folder, temporary_folder
from wikistream_assets.machine.variables import built
from wikistream_assets.settings import Settings

_FORMAT_TIMEOUT_SECONDS: Final = 120

# from the home on
_DATA: Final = "kafka/data"
_SCRATCH: Final = "kafka/tmp"
_PROPERTIES: Final = "kafka/server.properties"
_LOG4J_PROPERTIES: Final = "kafka/log4j.properties"


def command(settings: Settings, report: Report | None = None) -> list[str]:
    """Return the broker's command line, to be run in the home; fetches the jars if they are not in the cache."""
    return [*_java(settings, report), "kafka.Kafka", _PROPERTIES]


def files(settings: Settings) -> dict[Path, str]:
    """Return the broker's configuration files and their text, as the settings want them."""
    return {
        settings.root / _PROPERTIES: _server_properties(settings),
        settings.root / _LOG4J_PROPERTIES: _LOG4J,
    }


def format_storage(settings: Settings, report: Report | None = None) -> None:
    """Format the storage of a new home; one that is formatted is left alone.

    Raises:
        BrokerError: Kafka's storage tool failed; the text has the cause.
    """
    if (_data(settings) / "meta.properties").exists():
        return
    tool = [
        *_java(settings, report),
        *("kafka.tools.StorageTool", "format", "--ignore-formatted"),
        *("-t", _cluster_id(settings), "-c", _PROPERTIES),
    ]
    result = subprocess.run(
        tool,
        cwd=settings.root,
        env=built(os.environ),
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_FORMAT_TIMEOUT_SECONDS,
        check=False,
    )
    if result.returncode != 0:
        cause = cause_of(result.stderr + result.stdout)
        advice = advice_for(cause) or "'make doctor' checks the machine"
        raise BrokerError(f"the broker's storage {_data(settings)} cannot be formatted ({cause}): {advice}")


def _data(settings: Settings) -> Path:
    return settings.root / _DATA


def _cluster_id(settings: Settings) -> str:
    """Return the home's cluster id (22 characters of URL-safe base64), made once."""
    path = settings.kafka_dir / "cluster_id"
    if not path.exists():
        # 'A' in front: Kafka's command line would take an id that starts with '-' for an option
        new = "A" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode("ascii")[1:22]
        path.write_text(new, encoding="ascii")
    return path.read_text(encoding="ascii").strip()


def _java(settings: Settings, report: Report | None) -> list[str]:
    jars = ensure_jars("kafka", settings, report)
    # in the home if it can be: zstd's native library is unpacked there, and stays if the broker is killed
    scratch = scratch_folder(settings.root / _SCRATCH, temporary_folder())
    return [
        str(find_java().executable),
        "-Xms64m",
        f"-Xmx{settings.kafka_heap_mb}m",
        # the serial collector: a tenth less resident than G1 (213 and 238 MB after 300,000 events) at the same rate
        "-XX:+UseSerialGC",
        "-XX:+ExitOnOutOfMemoryError",  # a broker without memory is restarted, not left half alive
        "-XX:-UsePerfData",
        "-XX:ErrorFile=logs/broker-crash.log",
        *java_options(scratch),
        f"-Dlog4j.configuration=file:{_LOG4J_PROPERTIES}",
        "-cp",
        ":".join(str(jar) for jar in jars),
    ]


def _server_properties(settings: Settings) -> str:
    return _SERVER.format(
        port=settings.kafka_port,
        controller_port=settings.kafka_controller_port,
        data=_DATA,
        retention=settings.kafka_retention_hours,
        max_message=max_message_bytes(settings),
    )


_SERVER: Final = """\
# written by WikiStream at each start; change settings by WIKISTREAM_* instead
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:{controller_port}
log.dirs={data}

# one node: nothing can be replicated
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
# one partition each instead of 50: a killed broker recovers and reloads them in a moment
offsets.topic.num.partitions=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false

# a killed broker is let in again once its former session has expired (9 s by default)
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500

log.retention.hours={retention}
message.max.bytes={max_message}
replica.fetch.max.bytes={max_message}

# sized for two cores and a small heap; the cleaner alone would claim 128 MB
num.network.threads=2
num.io.threads=4
num.recovery.threads.per.data.dir=2
log.cleaner.dedupe.buffer.size=8388608
"""

_LOG4J: Final = """\
log4j.rootLogger=WARN, file, console
log4j.logger.kafka.server.KafkaRaftServer=INFO
log4j.logger.kafka.log.LogManager=INFO
log4j.appender.file=org.apache.log4j.RollingFileAppender
log4j.appender.file.File=logs/broker.log
log4j.appender.file.MaxFileSize=5MB
log4j.appender.file.MaxBackupIndex=2
log4j.appender.file.layout=org.apache.log4j.PatternLayout
log4j.appender.file.layout.ConversionPattern=%d %p %c: %m%n
# errors also to stdout, from where a failed start is explained
log4j.appender.console=org.apache.log4j.ConsoleAppender
log4j.appender.console.Threshold=ERROR
log4j.appender.console.layout=org.apache.log4j.PatternLayout
log4j.appender.console.layout.ConversionPattern=%d %p %c: %m%n
"""
