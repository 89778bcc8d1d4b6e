"""What a machine needs to run WikiStream, checked one by one, each with the way to mend it. Changes nothing."""

import os
import platform
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from typing import Final

from packaging.requirements import Requirement

from wikistream_assets.embedded.home import inspect_home
from wikistream_assets.embedded.jars import JarSet, find_broken, jar_folder, pinned_jars
from wikistream_assets.embedded.lake import inspect_lake
from wikistream_assets.embedded.programs import programs
from wikistream_assets.embedded.services import status
from wikistream_assets.embedded.source import chosen_source
from wikistream_assets.embedded.trial import try_broker, try_session
from wikistream_assets.exceptions import LakeError, SetupError, WikistreamError
from wikistream_assets.machine.java import find_java
from wikistream_assets.machine.limits import ensure_open_files
from wikistream_assets.machine.ports import listening_process, refuse_taken_port
from wikistream_assets.settings import Settings, load_criteria

FREE_DISK_GIB: Final = 2.0
"""Enough for the jars, a lake of some millions of events and the broker's week of retention of a modest stream."""

_GIB: Final = 1024**3


@dataclass(frozen=True)
class Finding:
    """The outcome of one check; ``text`` says what was found or, if not ``ok``, what is wrong and how to mend it."""

    name: str
    ok: bool
    text: str


def examine(settings: Settings) -> list[Finding]:
    """Run every check; one that fails does not keep the others from running."""
    checks: dict[str, Callable[[Settings], str]] = {
        "python": _python,
        "packages": _packages,
        "java": _java,
        "jars for spark": lambda settings: _jars(settings, "spark"),
        "jars for kafka": lambda settings: _jars(settings, "kafka"),
        "home": inspect_home,
        "lake": _lake,
        "criteria": _criteria,
        "disk": _disk,
        "open files": lambda _: f"{ensure_open_files()} allowed",
        "services and ports": _services,
        "port of the UI": _ui_port,
    }
    return [_finding(name, check, settings) for name, check in checks.items()]


def try_out(settings: Settings, findings: Sequence[Finding]) -> list[Finding]:
    """Start Spark and a broker for a moment, both at once; ``findings`` say whether there is a Java and what it runs.

    Takes some 20 seconds, at most a few minutes.
    """
    missing = [finding.name for finding in findings if not finding.ok and finding.name.startswith(("java", "jars"))]
    if missing:
        return [Finding(name, False, f"not tried: first correct what is wrong with {missing[0]}") for name in _TRIALS]
    with ThreadPoolExecutor(len(_TRIALS)) as pool:
        return list(pool.map(lambda trial: _finding(trial[0], trial[1], settings), _TRIALS.items()))


_TRIALS: Final[Mapping[str, Callable[[Settings], str]]] = {"spark": try_session, "broker": try_broker}


def _finding(name: str, check: Callable[[Settings], str], settings: Settings) -> Finding:
    try:
        return Finding(name, True, check(settings))
    except WikistreamError as error:
        return Finding(name, False, str(error))


def _python(_: Settings) -> str:
    if sys.version_info[:2] != (3, 11):
        raise SetupError(
            f"this is Python {platform.python_version()}, WikiStream needs 3.11: run 'make clean', then 'make doctor'"
        )
    return f"{platform.python_version()} at {sys.prefix}"


def _packages(_: Settings) -> str:
    wrong, right = [], 0
    for line in metadata.requires("wikistream") or []:
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if requirement.specifier.contains(version, prereleases=True):
            right += 1
        else:
            wrong.append(f"{requirement.name} is {version}, needed is {requirement.specifier}")
    if wrong:
        raise SetupError(f"{'; '.join(wrong)}: run 'make clean' and start again")
    return f"{right} as needed"


def _java(_: Settings) -> str:
    java = find_java()
    origin = "from JAVA_HOME" if os.environ.get("JAVA_HOME") else "bundled"
    return f"{java.version} at {java.home} ({origin})"


def _jars(settings: Settings, names: JarSet) -> str:
    broken = find_broken(names, settings, thorough=True)
    if broken:
        first, fault = next(iter(broken.items()))
        others = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise SetupError(
            f"{jar_folder(settings, names) / first.file_name} is {fault}{others}: 'make up' fetches it (needs the network once)"
        )
    return f"{len(pinned_jars(names))} verified in {jar_folder(settings, names)}"


def _lake(settings: Settings) -> str:
    if not settings.catalog_db.exists():
        return "not created yet"
    return f"{inspect_lake(settings)} tables"


def _criteria(settings: Settings) -> str:
    changed = load_criteria(settings).changed
    names = [f"{section}.{name}" for section, values in changed.items() for name in values]
    return f"{', '.join(names)} set in {settings.criteria_file}" if names else "the defaults"


def _disk(settings: Settings) -> str:
    folder = next(folder for folder in (settings.root, *settings.root.parents) if folder.is_dir())
    free = shutil.disk_usage(folder).free / _GIB
    if free < FREE_DISK_GIB:
        raise LakeError(
            f"{free:.1f} GiB free at {folder}, at least {FREE_DISK_GIB:.0f} GiB are needed: make room, or set WIKISTREAM_HOME "
            "to a folder on another disk"
        )
    return f"{free:.0f} GiB free at {folder}"


def _services(settings: Settings) -> str:
    states = {service.name: service for service in status(settings)}
    texts = []
    for program in programs(settings, chosen_source(settings)):
        service = states[program.name]
        if service.state in ("SILENT", "FATAL", "BACKOFF", "ORPHANED"):
            raise SetupError(f"{service.name} is {service.state} ({service.detail}): see {settings.root / 'logs'}")
        if service.pid is None:
            for setting, port in program.ports.items():
                refuse_taken_port(program.name, setting, port)
        ports = " and ".join(str(port) for port in program.ports.values())
        on = (" on " if service.pid else "; free: ") + ports if ports else ""
        texts.append(f"{program.name} {'runs' if service.pid else 'is stopped'}{on}")
    return "; ".join(texts)


def _ui_port(settings: Settings) -> str:
    listener = listening_process(settings.dagster_port)
    if listener is not None and any("dagster" in part for part in listener.cmdline()):
        return f"{settings.dagster_port} serves Dagster (process {listener.pid})"
    refuse_taken_port("Dagster UI", "WIKISTREAM_DAGSTER_PORT", settings.dagster_port)
    return f"{settings.dagster_port} is free"
