"""The limit of open files: raised where that is allowed, one line where it is not."""

import shutil
import subprocess
import sys

import pytest

from wikistream_assets.settings import Settings
from wikistream_assets_tests.conftest import child_environment

pytestmark = pytest.mark.local

_ASK = """
from wikistream_assets.machine.limits import ensure_open_files
from wikistream_assets.exceptions import SetupError
try:
    print(ensure_open_files())
except SetupError as error:
    print(error)
"""
_COMMAND = "import sys; from wikistream_assets.cli.main import main; sys.argv[0] = 'wikistream'; main()"
# Without the capability root is like anybody: a hard limit cannot be raised again.
_AS_ANYBODY = ("setpriv", "--inh-caps=-sys_resource", "--bounding-set=-sys_resource")

needs_setpriv = pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv (util-linux)")


def limited(
    limit: str, code: str, *arguments: str, settings: Settings | None = None
) -> subprocess.CompletedProcess[str]:
    shell = f'{limit}; exec "$@"'
    return subprocess.run(
        [*_AS_ANYBODY, "sh", "-c", shell, "sh", sys.executable, "-c", code, *arguments],
        env=child_environment(settings) if settings else {},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@needs_setpriv
@pytest.mark.parametrize(
    ("limit", "told"),
    [
        ("ulimit -Sn 256; ulimit -Hn 2000", "2000"),
        ("ulimit -n 1024", "1024"),
        ("ulimit -n 1023", "this shell allows 1023 open files (ulimit -Hn), WikiStream needs 1024: raise the limit"),
    ],
)
def test_the_soft_limit_follows_the_hard_one_which_must_be_high_enough(limit: str, told: str) -> None:
    done = limited(limit, _ASK)
    assert (done.returncode, done.stdout.startswith(told)) == (0, True), done.stdout + done.stderr


@needs_setpriv
@pytest.mark.parametrize("command", [("up",), ("demo",)])
def test_too_low_a_limit_is_one_line_before_anything_is_written(settings: Settings, command: tuple[str, ...]) -> None:
    done = limited("ulimit -n 256", _COMMAND, *command, settings=settings)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, done.stderr
    assert "allows 256 open files" in lines[0]
    assert "ulimit -n 4096" in lines[0]
    assert not settings.root.exists()
