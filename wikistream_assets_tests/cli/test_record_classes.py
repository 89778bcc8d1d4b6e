"""What set-up has recorded is what Spark's JVMs start from."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wikistream_assets.machine.java import class_archive
from wikistream_assets.settings import Settings
from wikistream_assets_tests.conftest import child_environment

pytestmark = pytest.mark.spark

_SESSION = """
import sys
from wikistream_assets.embedded.spark import local_session
from wikistream_assets.settings import load_settings
local_session(load_settings(), jvm_options=sys.argv[1:]).range(1).count()
"""


def test_a_session_takes_its_classes_from_the_archive(settings: Settings, tmp_path: Path) -> None:
    assert class_archive().is_file(), "set-up ('make') records it"
    log = tmp_path / "classes.log"
    command = [sys.executable, "-c", _SESSION, f"-Xlog:class+load:file={log}"]
    subprocess.run(command, env=os.environ | child_environment(settings), check=True)
    loaded = [line for line in log.read_text(encoding="utf-8").splitlines() if " org.apache.spark.sql." in line]
    archived = [line for line in loaded if line.endswith("source: shared objects file (top)")]
    # those that are made anew in each process (lambdas, compiled queries) cannot be in it
    from_jars = [line for line in loaded if ".jar" in line]
    assert len(archived) > 1_000
    assert len(from_jars) < len(archived) / 20
