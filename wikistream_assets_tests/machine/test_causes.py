"""The cause is found in what Java, Kafka, Spark and Python really print; the advice fits it."""

import errno
import os

import pytest

from wikistream_assets.machine.causes import advice_for, cause_of, with_advice

pytestmark = pytest.mark.unit

_PORT_TAKEN = """\
2026-11-29 23:27:34,976 ERROR kafka.network.DataPlaneAcceptor: Unable to start acceptor for ListenerName(PLAINTEXT)
org.apache.kafka.common.KafkaException: Socket server failed to bind to 127.0.0.1:29192: Address already in use.
\tat kafka.network.Acceptor.openServerSocket(SocketServer.scala:735)
Caused by: java.net.BindException: Address already in use
\tat java.base/sun.nio.ch.Net.bind0(Native Method)
\t... 17 more
2026-11-29 23:27:35,113 ERROR kafka.server.BrokerServer: [BrokerServer id=1] Received a fatal error
java.lang.RuntimeException: Unable to start acceptor for ListenerName(PLAINTEXT)
\tat java.base/java.util.concurrent.CompletableFuture.reportGet(Unknown Source)
Caused by: org.apache.kafka.common.KafkaException: Socket server failed to bind to 127.0.0.1:29192: Address already in use.
2026-11-29 23:27:35,261 ERROR kafka.network.DataPlaneAcceptor: Cannot invoke "close()" because it is null
java.lang.NullPointerException: Cannot invoke "close()" because it is null
\tat kafka.network.Acceptor.close(SocketServer.scala:712)
"""

_FULL_DISK = """\
Formatting metadata directory /full/data with metadata.version 3.9-IV0.
Error while writing meta.properties file /full/data: java.io.IOException: No space left on device
\tat java.base/sun.nio.ch.FileDispatcherImpl.write0(Native Method)
"""

_NO_RIGHTS = """\
Formatting metadata directory /other/data with metadata.version 3.9-IV0.
Error while writing meta.properties file /other/data: java.nio.file.AccessDeniedException: /other/data
"""

_BAD_SETTING = """\
Exception in thread "main" org.apache.kafka.common.config.ConfigException: Invalid value x for configuration broker.id: \
Not a number of type INT
\tat org.apache.kafka.common.config.ConfigDef.parseType(ConfigDef.java:765)
\tat kafka.Kafka.main(Kafka.scala)
"""

_UNKNOWN_HOST = """\
Exception in thread "main" java.lang.ExceptionInInitializerError
\tat org.apache.spark.SparkConf$.<init>(SparkConf.scala:714)
Caused by: java.net.UnknownHostException: no-such-host-x: no-such-host-x: Name or service not known
\tat java.base/java.net.InetAddress.getLocalHost(Unknown Source)
Caused by: java.net.UnknownHostException: no-such-host-x: Name or service not known
\tat java.base/java.net.Inet6AddressImpl.lookupAllHostAddr(Native Method)
\t... 34 more
Traceback (most recent call last):
  File "session.py", line 497, in getOrCreate
    sc = SparkContext.getOrCreate(sparkConf)
pyspark.errors.exceptions.base.PySparkRuntimeError: [JAVA_GATEWAY_EXITED] Java gateway process exited before sending its port.
"""

_NO_MEMORY = """\
OpenJDK 64-Bit Server VM warning: INFO: os::commit_memory(0x00007eb2a5600000, 314572800000, 0) failed; error='Not enough space'
#
# There is insufficient memory for the Java Runtime Environment to continue.
# Native memory allocation (mmap) failed to map 314572800000 bytes for committing reserved memory.
# An error report file with more information is saved as:
# /lake/logs/broker-crash.log
"""

_NO_HEAP = """\
Error occurred during initialization of VM
Could not reserve enough space for 943718400KB object heap
"""

_WRONG_OPTION = """\
Picked up _JAVA_OPTIONS: -Xbogus
Unrecognized option: -Xbogus
Error: Could not create the Java Virtual Machine.
Error: A fatal exception has occurred. Program will exit.
"""

_NOEXEC = """\
Exception in thread "main" java.lang.UnsatisfiedLinkError: /scratch/libzstd-jni.so: failed to map segment \
from shared object
\tat java.base/jdk.internal.loader.NativeLibraries.load(Native Method)
"""

_THROUGH_PY4J = """\
Traceback (most recent call last):
  File "protocol.py", line 326, in get_return_value
    raise Py4JJavaError(
py4j.protocol.Py4JJavaError: An error occurred while calling None.org.apache.spark.api.java.JavaSparkContext.
: java.io.IOException: Failed to create a temp directory (under /full) after 10 attempts!
\tat org.apache.spark.network.util.JavaUtils.createDirectory(JavaUtils.java:436)
"""

_CHAINED_IN_PYTHON = """\
Traceback (most recent call last):
  File "catalog.py", line 12, in commit
sqlite3.OperationalError: unable to open database file

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "lakehouse.py", line 95, in committing
wikistream_assets.exceptions.LakeError: the catalog cannot be written
"""


@pytest.mark.parametrize(
    ("output", "cause", "advice"),
    [
        (
            _PORT_TAKEN,
            "Socket server failed to bind to 127.0.0.1:29192: Address already in use.",
            "stop what uses the port, or set another one",
        ),
        (
            _FULL_DISK,
            "Error while writing meta.properties file /full/data: java.io.IOException: No space left on device",
            "make room",
        ),
        (
            _NO_RIGHTS,
            "Error while writing meta.properties file /other/data: java.nio.file.AccessDeniedException: /other/data",
            "correct its permissions",
        ),
        (_BAD_SETTING, "Invalid value x for configuration broker.id: Not a number of type INT", ""),
        (
            _UNKNOWN_HOST,
            "no-such-host-x: no-such-host-x: Name or service not known",
            "check the name and this machine's name service",
        ),
        (
            _NO_MEMORY,
            "There is insufficient memory for the Java Runtime Environment to continue.",
            "free memory, or lower WIKISTREAM_SPARK_MEMORY_MB and WIKISTREAM_KAFKA_HEAP_MB",
        ),
        (
            _NO_HEAP,
            "Could not reserve enough space for 943718400KB object heap",
            "free memory, or lower WIKISTREAM_SPARK_MEMORY_MB and WIKISTREAM_KAFKA_HEAP_MB",
        ),
        (_WRONG_OPTION, "Unrecognized option: -Xbogus", ""),
        (
            _NOEXEC,
            "/scratch/libzstd-jni.so: failed to map segment from shared object",
            "set TMPDIR to a folder that is not mounted noexec",
        ),
        (_THROUGH_PY4J, "Failed to create a temp directory (under /full) after 10 attempts!", ""),
        (_CHAINED_IN_PYTHON, "unable to open database file", ""),
        ("exec: java: not found\n", "exec: java: not found", ""),
        ("java.lang.OutOfMemoryError\n\tat x\n", "OutOfMemoryError", advice_for("insufficient memory")),
        ("working ..\nthe last words\n", "the last words", ""),
        ("", "no output", ""),
    ],
)
def test_cause_and_advice(output: str, cause: str, advice: str) -> None:
    assert cause_of(output) == cause
    assert advice_for(cause) == advice


def test_a_long_cause_is_cut() -> None:
    assert len(cause_of(f"java.lang.IllegalStateException: {'far too long ' * 100}")) == 300


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "make room, or go elsewhere"),
        (errno.EDQUOT, "make room, or go elsewhere"),
        (errno.EACCES, "correct its permissions, or go elsewhere"),
        (errno.EROFS, "make its file system writable, or go elsewhere"),
        (errno.EMFILE, "raise the limit with 'ulimit -n 4096', or go elsewhere"),
        (errno.ENOTDIR, "go elsewhere"),
    ],
)
def test_only_advice_that_fits(number: int, advice: str) -> None:
    assert with_advice("go elsewhere", OSError(number, os.strerror(number))) == advice
