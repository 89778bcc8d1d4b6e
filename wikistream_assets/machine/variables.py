"""The environment of our processes, built from the one that was handed over.

A shell profile, a cron job or a container hands over variables that were meant for another Spark, another Python or another user.
What the tools we run would take for a setting is dropped by family, not by name, so that a variable nobody has thought of is
dropped with the rest; what they need is set. All else passes: proxies, certificates, credentials, ``JAVA_HOME``, the system's
loader and allocator, which we cannot list. Standard library only: this runs before anything else is imported.
"""

import os
import pwd
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

# Settings for another installation of the tools we run. With a foreign SPARK_HOME or SPARK_REMOTE we would run another Spark.
_TOOLS: Final = (
    *("SPARK_", "PYSPARK_", "HADOOP_", "HDFS_", "YARN_", "MAPRED_", "HIVE_", "KAFKA_", "PYICEBERG_"),
    *("_JAVA_", "CLASSPATH", "BASH_ENV", "BASH_FUNC_", "BASHOPTS", "SHELLOPTS"),
)
_DAGSTER: Final = "DAGSTER_"  # each home has its own instance
_LOCALE: Final = ("LANG", "LC_")  # and LANGUAGE

_PYTHON: Final = "PYTHON"
_HARMLESS_TO_PYTHON: Final = (
    *("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "PYTHONNOUSERSITE", "PYTHONSAFEPATH"),
    *("PYTHONHASHSEED", "PYTHONFAULTHANDLER", "PYTHONUTF8"),
)

_UTF8_LOCALE: Final = "en_US.UTF-8" if sys.platform == "darwin" else "C.UTF-8"
"""Java takes the encoding of arguments and file names from the locale. This one is there without a package for languages."""

_SYSTEM_PATH: Final = ("/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin")
_NO_HOME: Final = "/nonexistent"
_TEMPORARY: Final = ("TMPDIR", "TEMP", "TMP")
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


def built(given: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child process, made from the one that was handed over."""
    kept = {name: value for name, value in given.items() if not _is_dropped(name)}
    for name in _TEMPORARY:
        if name in kept and not _is_usable(kept[name]):
            del kept[name]
    return {
        **kept,
        **_for_libraries(given),
        "PATH": _path(given.get("PATH", "")),
        "LC_ALL": _UTF8_LOCALE,
        "PYTHONUTF8": "1",
    }


def adopt() -> None:
    """Make the built environment this program's own; call it before anything else is imported.

    What Python read at its start (``PYTHONPATH``, ``PYTHONOPTIMIZE``, ``PYTHONWARNINGS``, an encoding other than UTF-8) cannot be
    taken back: then the program starts again in this process, with the same arguments.
    """
    misled = any(_is_for_python(name) for name in os.environ) or sys.getfilesystemencoding() != "utf-8"
    environment = built(os.environ)
    if misled:
        os.execve(sys.executable, sys.orig_argv, environment)  # noqa: S606  # this very program
    os.environ.clear()
    os.environ.update(environment)


def adopt_for_libraries() -> None:
    """Keep from the libraries in this process what was not meant for them.

    For a process that somebody else has started, such as Dagster's: what concerns Python, Dagster and the locale stays.
    """
    for name in [name for name in os.environ if _is_for_tools(name)]:
        del os.environ[name]
    os.environ.update(_for_libraries(os.environ))


def user_name(given: Mapping[str, str]) -> str:
    """The name of whoever runs this; made up from the number if a container runs it under one that has no name."""
    named = given.get("LOGNAME") or given.get("USER")
    if named:
        return named
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid{os.getuid()}"


def _is_dropped(name: str) -> bool:
    return _is_for_tools(name) or _is_for_python(name) or name.startswith((_DAGSTER, *_LOCALE))


def _is_for_tools(name: str) -> bool:
    # every maker of Java has a variable of options: JAVA_TOOL_OPTIONS, JDK_JAVA_OPTIONS, OPENJ9_JAVA_OPTIONS ..
    return name.startswith(_TOOLS) or ("JAVA" in name and name.endswith(("_OPTIONS", "_OPTS")))


def _is_for_python(name: str) -> bool:
    # PYTHON_VERSION and the like are notes of container images
    return (
        name.startswith(_PYTHON)
        and name != _PYTHON
        and not name.startswith(f"{_PYTHON}_")
        and name not in _HARMLESS_TO_PYTHON
    )


def _for_libraries(given: Mapping[str, str]) -> dict[str, str]:
    user = user_name(given)
    spared = _with_loopback(given.get("no_proxy") or given.get("NO_PROXY") or "")
    return {
        "HOME": given.get("HOME") or _home(),
        "USER": given.get("USER") or user,
        "LOGNAME": user,
        # A proxy can reach nothing on this machine. Curl and gRPC read the small one only.
        **{"no_proxy": spared, "NO_PROXY": spared},
        **({"no_grpc_proxy": _with_loopback(given["no_grpc_proxy"])} if given.get("no_grpc_proxy") else {}),
        # PyIceberg reads the first .pyiceberg.yaml it finds, there before the user's home and the current folder.
        "PYICEBERG_HOME": str(Path(__file__).parent),
    }


def _home() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return _NO_HOME  # what needs a folder there is refused with the setting that names another


def _with_loopback(hosts: str) -> str:
    named = [host.strip() for host in hosts.split(",") if host.strip()]
    return "*" if "*" in named else ",".join(dict.fromkeys((*named, *_LOOPBACK)))


def _path(given: str) -> str:
    # relative entries would run what lies in the current folder
    folders = [folder for folder in given.split(":") if folder.startswith("/")]
    return ":".join(dict.fromkeys((*folders, *_SYSTEM_PATH)))


def _is_usable(folder: str) -> bool:
    return Path(folder).is_dir() and os.access(folder, os.W_OK | os.X_OK)
