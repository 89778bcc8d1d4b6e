"""Spark's JVM: started with a command line and an environment that are built here, and reached by py4j.

PySpark would start it by ``spark-submit``: shell scripts and one more JVM, which read ``SPARK_HOME``, ``spark-env.sh``,
``spark-defaults.conf``, ``PATH`` and a dozen more from wherever the user has another Spark. What they make in the end, a Java
with a class path that runs ``PythonGatewayServer``, is made here directly.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from py4j.java_gateway import JavaGateway
from pyspark import SparkContext
from pyspark.java_gateway import launch_gateway
from pyspark.serializers import UTF8Deserializer, read_int

from producer.settings import ENV_PREFIX
from wikistream_assets.exceptions import SetupError
from wikistream_assets.machine.causes import advice_for, cause_of
from wikistream_assets.machine.java import find_java, java_options, scratch_folder, temporary_folder
from wikistream_assets.machine.variables import adopt_for_libraries, built, user_name
from wikistream_assets.settings import Settings

MODULE_OPTIONS: Final = (
    "-XX:+IgnoreUnrecognizedVMOptions",
    *(
        f"--add-opens=java.base/{package}=ALL-UNNAMED"
        for package in (
            *("java.lang", "java.lang.invoke", "java.lang.reflect", "java.io", "java.net", "java.nio", "java.util"),
            *("java.util.concurrent", "java.util.concurrent.atomic", "jdk.internal.ref", "sun.nio.ch", "sun.nio.cs"),
            *("sun.security.action", "sun.util.calendar"),
        )
    ),
    "--add-opens=java.security.jgss/sun.security.krb5=ALL-UNNAMED",
    "-Djdk.reflect.useDirectMethodHandle=false",
)
"""What Spark reaches into of Java 17: ``org.apache.spark.launcher.JavaModuleOptions``."""

_START_SECONDS: Final = 120.0
_POLL_SECONDS: Final = 0.02


def start_jvm(settings: Settings, jars: Sequence[Path], options: Sequence[str]) -> None:
    """Start this process's JVM, unless it has one, and make PySpark use it.

    Args:
        settings: for its heap and the place of what it unpacks.
        jars: on its class path, before Spark's own.
        options: more of Java's options.

    Raises:
        SetupError: it does not start; the text has Java's reason.
    """
    if SparkContext._gateway is not None:
        return
    adopt_for_libraries()
    os.environ["PYSPARK_PYTHON"] = sys.executable  # Spark's Python workers, or it would take any python3 of the PATH
    scratch = scratch_folder(temporary_folder(), settings.root / "run" / "tmp")
    command = [
        str(find_java().executable),
        f"-Xmx{settings.spark_memory_mb}m",
        *MODULE_OPTIONS,
        *java_options(scratch),
        *options,
        "-cp",
        ":".join((*(str(jar) for jar in jars), str(_pyspark() / "jars" / "*"))),
        "org.apache.spark.api.python.PythonGatewayServer",
    ]
    gateway = _connected(*_started(command, scratch))
    # Hadoop would ask the system for the user's name, and fails in a container whose user has none.
    users = gateway.jvm.org.apache.hadoop.security.UserGroupInformation
    users.setLoginUser(users.createRemoteUser(user_name(os.environ)))
    SparkContext._ensure_initialized(gateway=gateway)


def _started(command: list[str], scratch: Path) -> tuple[subprocess.Popen[bytes], int, str]:
    """The process, the port on which it listens, and the word it wants to hear."""
    with tempfile.TemporaryDirectory(dir=scratch, prefix="wikistream-gateway-") as folder:
        said = Path(folder) / "connection"
        secrets = {name for name in os.environ if name.startswith(ENV_PREFIX)}  # settings; a JVM is told by its options
        environment = {name: value for name, value in built(os.environ).items() if name not in secrets} | {
            "SPARK_HOME": str(_pyspark()),
            "SPARK_LOCAL_IP": "127.0.0.1",  # or Spark would look the machine's name up, which not every machine can
            "_PYSPARK_DRIVER_CONN_INFO_PATH": str(said),
        }
        try:
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,  # closed when this process ends, however it ends: then the JVM ends, too
                preexec_fn=_ignore_interrupts,  # Ctrl-C is for Python to handle
            )
        except OSError as error:
            raise SetupError(f"Spark's Java cannot be started ({command[0]}: {error.strerror})") from None
        deadline = time.monotonic() + _START_SECONDS
        while not said.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise SetupError(_explained(command, environment))
            time.sleep(_POLL_SECONDS)
        with said.open("rb") as file:
            # PySpark's functions have no types
            port: int = read_int(file)  # type: ignore[no-untyped-call]
            secret: str = UTF8Deserializer().loads(file)  # type: ignore[no-untyped-call]
            return process, port, secret


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _connected(process: subprocess.Popen[bytes], port: int, secret: str) -> JavaGateway:
    """PySpark's end of a gateway that runs already, which it finds by these two variables."""
    os.environ["PYSPARK_GATEWAY_PORT"], os.environ["PYSPARK_GATEWAY_SECRET"] = str(port), secret
    try:
        gateway: JavaGateway = launch_gateway()  # type: ignore[no-untyped-call]
    finally:
        del os.environ["PYSPARK_GATEWAY_PORT"], os.environ["PYSPARK_GATEWAY_SECRET"]
    gateway.proc = process
    return gateway


def _explained(command: list[str], environment: dict[str, str]) -> str:
    """Why the JVM did not start: its words have gone to standard error, so the same Java is asked once more, for its version."""
    asked = subprocess.run(
        [*command[:-1], "-version"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    if asked.returncode == 0:
        return (
            "Spark's Java ended at its start, or did not answer: its message is above; 'make doctor' checks the machine"
        )
    cause = cause_of(asked.stderr + asked.stdout)
    return f"Spark's Java does not start ({cause}): {advice_for(cause) or 'run make doctor'}"


def _pyspark() -> Path:
    spec = find_spec("pyspark")
    assert spec is not None  # noqa: S101  # imported above
    assert spec.origin is not None  # noqa: S101
    return Path(spec.origin).parent
