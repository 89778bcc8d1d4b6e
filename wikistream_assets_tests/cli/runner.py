"""Runs the ``wikistream`` command as a user does: a process of its own, settings in its environment."""

import os
import subprocess
import sys
from pathlib import Path

from wikistream_assets.settings import Settings
from wikistream_assets_tests.conftest import child_environment

_WIKISTREAM = (sys.executable, "-c", "from wikistream_assets.cli.main import main; main()")


def wikistream(
    *arguments: str, settings: Settings | None = None, stdin: str = "", cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the command; ``variables`` are added to the environment, in which no other ``WIKISTREAM_*`` variable is left."""
    return subprocess.run(
        [*_WIKISTREAM, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        env=_environment(settings, variables),
        cwd=cwd,
        timeout=600,
        check=False,
    )


def start(*arguments: str, settings: Settings, **variables: str) -> subprocess.Popen[str]:
    """Start the command and leave it at work, for a test that ends it."""
    return subprocess.Popen(
        [*_WIKISTREAM, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment(settings, variables),
    )


def _environment(settings: Settings | None, variables: dict[str, str]) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WIKISTREAM_")}
    own = child_environment(settings) if settings else {}
    return clean | own | variables
