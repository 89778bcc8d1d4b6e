"""Runs the ``wikistream`` command as a user does: a process of its own, settings in its environment."""

import os
import subprocess
import sys
from pathlib import Path

from wikistream_assets.settings import Settings
from wikistream_assets_tests.conftest import child_environment


def wikistream(
    *arguments: str, settings: Settings | None = None, stdin: str = "", cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the command; ``variables`` are added to the environment, in which no other ``WIKISTREAM_*`` variable is left."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WIKISTREAM_")}
    own = child_environment(settings) if settings else {}
    return subprocess.run(
        [sys.executable, "-c", "from wikistream_assets.cli.main import main; main()", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        env=clean | own | variables,
        cwd=cwd,
        timeout=600,
        check=False,
    )
