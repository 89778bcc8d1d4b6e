"""The pinned jars: fetched once by the Ivy that the pyspark wheel carries, verified by SHA-256, shared by all homes.

Belongs here: which jars (``jars.lock``), where they lie, that they are the right ones. Does not belong here: who runs them.
Run as ``python -m wikistream_assets.embedded.jars`` it fetches what is missing and says so.
"""

import functools
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from shutil import rmtree
from typing import Final, Literal
from urllib.parse import urlsplit
from xml.sax.saxutils import quoteattr

from producer.paths import absolute
from wikistream_assets.exceptions import SetupError, WikistreamError
from wikistream_assets.machine.causes import with_advice
from wikistream_assets.machine.files import replace_whole
from wikistream_assets.machine.java import find_java, java_options
from wikistream_assets.machine.locks import exclusive
from wikistream_assets.machine.truststore import trust_options
from wikistream_assets.machine.variables import built
from wikistream_assets.settings import Settings, load_settings

JarSet = Literal["spark", "kafka"]
Report = Callable[[str], None]

_IVY_SETTINGS: Final = """\
<ivysettings>
  <settings defaultResolver="central"/>
  <resolvers><ibiblio name="central" m2compatible="true"/></resolvers>
</ivysettings>
"""
_IVY_TIMEOUT_SECONDS: Final = 1800
_REPORT_EVERY: Final = 5
_WORK_PREFIX: Final = ".fetch-"
_FETCHED: Final = re.compile(r"\[SUCCESSFUL \] [^#]+#(?P<name>[^;]+);(?P<revision>[^!]+)!")
_REASON: Final = re.compile(r"(?:[\w.]+\.)?(?P<kind>\w+(?:Exception|Error)): (?P<text>[^\n]+)")


@dataclass(frozen=True)
class Jar:
    """One pinned artifact."""

    organisation: str
    name: str
    revision: str
    sha256: str

    @property
    def file_name(self) -> str:
        return f"{self.name}-{self.revision}.jar"


@functools.cache
def pinned_jars(names: JarSet) -> tuple[Jar, ...]:
    """Return the jars of a set as ``jars.lock`` pins them."""
    lock = tomllib.loads(resources.files(__package__).joinpath("jars.lock").read_text(encoding="utf-8"))
    return tuple(Jar(**entry) for entry in lock[names])


def jar_folder(settings: Settings, names: JarSet) -> Path:
    """Return the folder of a set inside the cache, whether it exists or not."""
    return absolute(settings.cache) / "jars" / names


def ensure_jars(names: JarSet, settings: Settings, report: Report | None = None) -> tuple[Path, ...]:
    """Return the paths of a set's jars, each present and verified; fetch what is missing or damaged.

    A jar is hashed once; after that its size and modification time stand for its content (a call then costs about a
    millisecond). Concurrent callers wait for each other and fetch once.

    Args:
        names: which set.
        settings: for the cache's place.
        report: takes a line of progress; the default writes to stderr.

    Raises:
        SetupError: a jar is missing or damaged and cannot be fetched, or the cache cannot be written.
    """
    folder = jar_folder(settings, names)
    jars = pinned_jars(names)
    try:
        if find_broken(names, settings):
            with exclusive(folder / ".lock"):
                broken = find_broken(names, settings)  # again: another process may just have fetched them
                if broken:
                    _fetch(names, broken, folder, report or to_stderr)
                    _remember(folder, jars)
    except OSError as error:
        advice = with_advice("set WIKISTREAM_CACHE to another folder", error)
        raise SetupError(f"the jar cache {folder} cannot be used ({error.strerror}): {advice}") from None
    return tuple(folder / jar.file_name for jar in jars)


def find_broken(names: JarSet, settings: Settings, *, thorough: bool = False) -> dict[Jar, str]:
    """Return the jars of a set that are not as pinned, each with what is wrong with it.

    Args:
        names: which set.
        settings: for the cache's place.
        thorough: hash every jar, instead of trusting an unchanged size and modification time.
    """
    folder = jar_folder(settings, names)
    verified = {} if thorough else _verified(folder)
    broken: dict[Jar, str] = {}
    fresh = False
    for jar in pinned_jars(names):
        path = folder / jar.file_name
        if not path.is_file():
            broken[jar] = "missing"
        elif verified.get(jar.file_name) != _identity(path, jar):
            fresh = True
            if _sha256(path) != jar.sha256:
                broken[jar] = "damaged"
    if fresh and not broken:
        _remember(folder, pinned_jars(names))
    return broken


def _identity(path: Path, jar: Jar) -> list[object]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, jar.sha256]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verified(folder: Path) -> dict[str, object]:
    try:
        found = json.loads((folder / "verified.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet, or cut short: then everything is hashed again
        return {}
    return found if isinstance(found, dict) else {}


def _remember(folder: Path, jars: Sequence[Jar]) -> None:
    identities = {jar.file_name: _identity(folder / jar.file_name, jar) for jar in jars}
    replace_whole(folder / "verified.json", json.dumps(identities).encode())


def _fetch(names: JarSet, broken: dict[Jar, str], folder: Path, report: Report) -> None:
    """Fetch jars into a work folder beside the cache, verify them, and move each into its place."""
    for jar, fault in broken.items():
        if fault == "damaged":
            report(f"{folder / jar.file_name} is damaged: fetching it again")
    for stale in folder.glob(f"{_WORK_PREFIX}*"):  # of a killed process: the lock is ours, so nobody works there
        rmtree(stale, ignore_errors=True)
    report(f"fetching {len(broken)} jars ({names}) into {folder}")
    with tempfile.TemporaryDirectory(dir=folder, prefix=_WORK_PREFIX) as work:
        _run_ivy(list(broken), Path(work), folder, report)
        for jar in broken:
            fetched = Path(work) / "out" / jar.file_name
            found = _sha256(fetched)
            if found != jar.sha256:
                raise SetupError(
                    f"{jar.file_name} came from the registry with SHA-256 {found}, jars.lock pins {jar.sha256}: "
                    "something on the way changes downloads; use another network or put the right file into "
                    + str(folder)
                )
            fetched.replace(folder / jar.file_name)


def _run_ivy(jars: Sequence[Jar], work: Path, folder: Path, report: Report) -> None:
    (work / "settings.xml").write_text(_IVY_SETTINGS, encoding="utf-8")
    (work / "ivy.xml").write_text(_ivy_module(jars), encoding="utf-8")
    # Relative to the work folder: Ivy gives brackets, parentheses and '$' in a path a meaning.
    command = [
        str(find_java().executable),
        *java_options(work),
        *trust_options(work),
        *_proxy_options(),
        f"-Divy.default.ivy.user.dir={work}",  # absolute: Ivy insists
        *("-jar", str(_ivy_jar())),
        *("-settings", "settings.xml", "-ivy", "ivy.xml", "-cache", "cache"),
        *("-retrieve", "out/[artifact]-[revision].[ext]"),
    ]
    output: list[str] = []
    done = 0
    with subprocess.Popen(
        command,
        cwd=work,
        env=built(os.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    ) as ivy:
        for line in ivy.stdout or ():
            output.append(line)
            if match := _FETCHED.search(line):
                done += 1
                if done == len(jars) or done % _REPORT_EVERY == 0:
                    report(f"  [{done}/{len(jars)}] {match['name']}-{match['revision']}.jar")
        code = ivy.wait(timeout=_IVY_TIMEOUT_SECONDS)
    if code != 0 or any(not (work / "out" / jar.file_name).is_file() for jar in jars):
        raise SetupError(
            f"{_listed(jars)} cannot be fetched ({_reason(output)}): check the network (HTTPS_PROXY and SSL_CERT_FILE are "
            f"honoured) and start again, or copy the files into {folder}"
        )


def _ivy_module(jars: Sequence[Jar]) -> str:
    dependencies = "\n".join(
        f"    <dependency org={quoteattr(jar.organisation)} name={quoteattr(jar.name)} rev={quoteattr(jar.revision)}"
        ' transitive="false" conf="default->default"/>'
        for jar in jars
    )
    return f"""\
<ivy-module version="2.0">
  <info organisation="wikistream" module="jars"/>
  <configurations><conf name="default"/></configurations>
  <dependencies>
{dependencies}
  </dependencies>
</ivy-module>
"""


def _ivy_jar() -> Path:
    # find_spec instead of an import: loading pyspark costs most of a second and nothing of it is needed
    spec = find_spec("pyspark")
    found = sorted(Path(spec.origin).parent.glob("jars/ivy-*.jar")) if spec and spec.origin else []
    if not found:
        raise SetupError("the pyspark package with its Ivy jar is not installed: run 'make clean' and start again")
    return found[-1]


def _proxy_options() -> list[str]:
    """Hand the proxy that pip and curl read from the environment on to Java, which does not look there."""
    proxy = urlsplit(os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy") or "")
    if not proxy.hostname:
        return []
    return [f"-Dhttps.proxyHost={proxy.hostname}", f"-Dhttps.proxyPort={proxy.port or 80}"]


def _listed(jars: Sequence[Jar]) -> str:
    return jars[0].file_name if len(jars) == 1 else f"{jars[0].file_name} and {len(jars) - 1} more jars"


def _reason(output: Sequence[str]) -> str:
    match = _REASON.search("".join(output))
    return f"{match['kind']}: {match['text'].strip().rstrip(')')}" if match else "the registry did not have them"


def to_stderr(line: str) -> None:
    """A ``Report`` for whoever gives none."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def main() -> int:
    """Fetch both sets; return the exit code."""
    try:
        settings = load_settings()
        for names in ("spark", "kafka"):
            paths = ensure_jars(names, settings)
            to_stderr(f"jars ({names}): {len(paths)} verified in {paths[0].parent}")
    except WikistreamError as error:
        to_stderr(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
