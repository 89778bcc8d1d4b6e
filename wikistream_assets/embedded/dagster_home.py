"""Dagster's own folder inside WIKISTREAM_HOME: runs, events and schedules of this lake."""

import os
from importlib.resources import files
from pathlib import Path

from wikistream_assets.machine.files import replace_whole
from wikistream_assets.settings import Settings


def prepare_dagster_home(settings: Settings) -> Path:
    """Make the folder with the ``dagster.yaml`` of this version, and point ``DAGSTER_HOME`` at it for this process."""
    home = settings.dagster_home
    home.mkdir(parents=True, exist_ok=True)
    wanted, there = (files("wikistream_assets.embedded") / "dagster.yaml").read_bytes(), home / "dagster.yaml"
    if not there.exists() or there.read_bytes() != wanted:
        replace_whole(there, wanted)
    os.environ["DAGSTER_HOME"] = str(home)
    return home
