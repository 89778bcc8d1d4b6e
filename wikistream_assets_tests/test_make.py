"""The Makefile and its scripts, run in a copy so that the repository's own environment is not touched."""

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytestmark = pytest.mark.local

REPOSITORY = Path(__file__).parents[1]
TARGETS = [
    "help",
    "demo",
    "dev",
    "up",
    "down",
    "health",
    "test",
    "test-unit",
    "check",
    "audit",
    "faults",
    "soak",
    "bench",
    "bench-long",
    "doctor",
    "clean",
]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with what bootstrap.sh and clean.sh work on."""
    root = tmp_path / "clone"
    root.mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(REPOSITORY / name, root / name)
    shutil.copytree(REPOSITORY / "infra" / "scripts", root / "infra" / "scripts")
    (root / "wikistream_assets" / "embedded").mkdir(parents=True)
    shutil.copy(REPOSITORY / "wikistream_assets" / "embedded" / "jars.lock", root / "wikistream_assets" / "embedded")
    return root


def make(root: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("WIKISTREAM_", "MAKE", "CONFIRM"))
    }
    return subprocess.run(
        ["make", *arguments],
        cwd=root,
        env=clean | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


TOOLS = (
    *("sh", "make", "awk", "cat", "chmod", "cut", "dirname", "env", "find", "flock", "grep", "head", "mkdir", "mktemp"),
    *("readlink", "rm", "sleep", "tail", "tee", "touch"),
)


def tools_without_python(folder: Path) -> str:
    """Return a PATH with the usual tools and no Python at all."""
    folder.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (folder / tool).symlink_to(found)
    return str(folder)


def errors(result: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in result.stderr.splitlines() if not line.startswith("make")]


def test_help_is_the_default_and_names_exactly_the_targets() -> None:
    for arguments in ((), ("help",)):
        lines = make(REPOSITORY, *arguments).stdout.splitlines()
        assert [line.split()[1] for line in lines if line.startswith("  make ")] == TARGETS


def test_without_python_it_is_one_line(copy: Path, tmp_path: Path) -> None:
    result = make(copy, "up", PATH=tools_without_python(tmp_path / "bin"))
    assert result.returncode != 0
    assert errors(result) == [
        "error: Python 3.11 was not found: install it (python3.11 with its venv module), or name it by PYTHON=/path/to/python3.11"
    ]
    assert not (copy / ".venv").exists()


def test_another_python_is_not_taken(copy: Path, tmp_path: Path) -> None:
    path = tools_without_python(tmp_path / "bin")
    other = tmp_path / "bin" / "python3"
    other.write_text("#!/bin/sh\nexit 1\n")  # what the version check answers on any Python but 3.11
    other.chmod(0o755)
    result = make(copy, "up", PATH=path)
    assert result.returncode != 0
    assert errors(result)[0].startswith("error: Python 3.11 was not found")


def test_without_a_registry_it_is_one_line_and_leaves_no_stamp(copy: Path) -> None:
    nowhere = "http://127.0.0.1:9"
    offline = {
        "HTTPS_PROXY": nowhere,
        "https_proxy": nowhere,
        "ALL_PROXY": nowhere,
        "PIP_RETRIES": "0",
        "UV_NO_CACHE": "1",
    }
    result = make(copy, "doctor", **offline, PIP_CACHE_DIR=str(copy / "pip-cache"))
    assert result.returncode != 0
    (line,) = errors(result)
    assert line.startswith("error: the packages cannot be installed (")
    assert "check the network" in line
    assert not (copy / ".venv" / ".ready").exists()


def test_clean_removes_the_lake_only_when_told(copy: Path) -> None:
    lake, other = copy / "lake", copy / "other"
    for folder in (lake, other, copy / ".venv", copy / ".ruff_cache", copy / "producer" / "__pycache__"):
        folder.mkdir(parents=True)
    (lake / "lake.json").touch()
    kept = make(copy, "clean", WIKISTREAM_HOME=str(lake))
    assert kept.returncode == 0
    assert "make clean CONFIRM=1" in kept.stdout
    assert lake.is_dir()
    assert [(copy / name).exists() for name in (".venv", ".ruff_cache", "producer/__pycache__")] == [
        False,
        False,
        False,
    ]
    assert make(copy, "clean", "CONFIRM=1", WIKISTREAM_HOME=str(other)).returncode == 0
    assert other.is_dir()  # not a lake: a mistyped home costs nothing
    assert make(copy, "clean", "CONFIRM=1", WIKISTREAM_HOME=str(lake)).returncode == 0
    assert not lake.exists()


def test_what_a_profile_has_for_another_python_does_not_reach_set_up(copy: Path, tmp_path: Path) -> None:
    """A Python that stands in for the real one says what it was handed over, and then that it is none."""
    path = tools_without_python(tmp_path / "bin")
    told = tmp_path / "told"
    python = tmp_path / "bin" / "python3.11"
    python.write_text(f"#!/bin/sh\nenv >{told}\nexit 1\n")
    python.chmod(0o755)
    hostile = {
        "PYTHONHOME": "/no/such/folder",
        "PYTHONPATH": "/opt/spark/python",
        "PYTHONWARNINGS": "error",
        "PIP_TARGET": "/no/such/folder",
        "PIP_USER": "1",
        "PIP_REQUIRE_HASHES": "1",
        "UV_SYSTEM_PYTHON": "1",
        "UV_EXCLUDE_NEWER": "2020-01-01",
    }
    wanted = {"PIP_INDEX_URL": "https://registry.example.org/simple", "PIP_CERT": "/etc/ssl/ca.pem"}
    make(copy, "up", PATH=path, **hostile, **wanted)
    handed_over = dict(line.split("=", 1) for line in told.read_text(encoding="utf-8").splitlines() if "=" in line)
    assert {name: handed_over[name] for name in hostile if name in handed_over} == {"PIP_USER": "0"}
    assert {name: handed_over[name] for name in wanted} == wanted


_UV = """\
#!/bin/sh
echo "$1" >>uv.log
if [ "$1" = venv ]; then
    sleep 1
    mkdir -p .venv/bin
    printf '#!/bin/sh\\nprintf "<%%s>" "$@"' >.venv/bin/python
    chmod +x .venv/bin/python
fi
"""
"""An installer that takes its time, and whose Python prints its arguments."""


@pytest.fixture
def path_with_uv(tmp_path: Path) -> str:
    path = tools_without_python(tmp_path / "bin")
    (tmp_path / "bin" / "uv").write_text(_UV)
    (tmp_path / "bin" / "uv").chmod(0o755)
    return path


def test_of_two_first_makes_one_waits_for_the_other(copy: Path, path_with_uv: str) -> None:
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda _: make(copy, "doctor", PATH=path_with_uv), range(2)))
    assert [result.returncode for result in results] == [0, 0], results
    waited = f"another 'make' is setting up {copy}: waiting until it is done"
    assert sorted(waited in result.stdout for result in results) == [False, True]
    assert (copy / "uv.log").read_text().split() == ["venv", "pip"], "it is set up once"
    assert (copy / ".venv" / ".ready").read_text() == f"{copy}\n"


def test_after_waiting_for_a_set_up_that_failed_it_is_done_again(copy: Path, path_with_uv: str, tmp_path: Path) -> None:
    fails_once = "if [ ! -e failed ]; then touch failed; sleep 1; exit 1; fi\n"
    (tmp_path / "bin" / "uv").write_text(_UV.replace("#!/bin/sh\n", f"#!/bin/sh\n{fails_once}"))
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda _: make(copy, "doctor", PATH=path_with_uv), range(2)))
    assert sorted(result.returncode for result in results) == [0, 2], results
    assert (copy / ".venv" / ".ready").exists()


def test_the_command_is_found_through_a_link_and_isolated(copy: Path, path_with_uv: str, tmp_path: Path) -> None:
    moved = copy.rename(tmp_path / 'it\'s $HOME `id` \\ "x"  #1')
    assert make(moved, "doctor", PATH=path_with_uv).stdout.endswith("<-I><-X><utf8><-m><wikistream_assets><doctor>")
    (tmp_path / "link").symlink_to(moved / ".venv" / "bin" / "wikistream")
    said = subprocess.run([tmp_path / "link", "a b"], capture_output=True, text=True, check=True).stdout
    assert said == "<-I><-X><utf8><-m><wikistream_assets><a b>"


@pytest.mark.parametrize("name", ["a:b", "one\ntwo", "ends\n", os.fsdecode(b"latin\xfc")])
def test_a_folder_that_cannot_hold_an_environment_is_one_line(
    copy: Path, path_with_uv: str, tmp_path: Path, name: str
) -> None:
    moved = copy.rename(tmp_path / name)
    result = subprocess.run(
        ["infra/scripts/bootstrap.sh"], cwd=moved, env={"PATH": path_with_uv}, capture_output=True, check=False
    )
    assert result.returncode == 1
    said = result.stderr.strip()
    assert said.startswith(b"error: the folder")
    assert said.endswith(b"rename or move it")
    assert not (moved / ".venv").exists()
    assert not (moved / "uv.log").exists()


def other_project(folder: Path) -> list[Path]:
    """Another project, with the folders that WikiStream's scripts work in and what they delete."""
    kept = [folder / name for name in ("infra/scripts", ".venv", "build", "dist", "x.egg-info", "a/__pycache__")]
    for path in kept:
        path.mkdir(parents=True)
    (folder / "pyproject.toml").write_text('[project]\nname = "other"\n')
    return kept


def test_clean_stays_in_its_own_folder(copy: Path, tmp_path: Path) -> None:
    kept = other_project(tmp_path / "other")
    (copy / ".venv").mkdir()
    # with CDPATH, 'cd infra/..' goes to the other project
    result = make(copy, "clean", CDPATH=str(tmp_path / "other"))
    assert result.returncode == 0, result.stderr
    assert not (copy / ".venv").exists()
    assert all(path.is_dir() for path in kept)


@pytest.mark.parametrize("script", ["bootstrap.sh", "clean.sh", "lock.sh"])
def test_a_script_refuses_another_projects_folder(tmp_path: Path, script: str) -> None:
    kept = other_project(tmp_path / "other")
    for name in ("project.sh", script):
        shutil.copy(REPOSITORY / "infra" / "scripts" / name, kept[0])
    result = subprocess.run(["sh", kept[0] / script], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {tmp_path / 'other'} is not WikiStream's folder")
    assert all(path.is_dir() for path in kept)


def test_clean_understands_a_home_as_the_settings_do(copy: Path, tmp_path: Path) -> None:
    user = tmp_path / "user"
    for folder in (user / "lake", copy / "-rf", tmp_path / "userx"):
        folder.mkdir(parents=True)
        (folder / "lake.json").touch()
    for home in ("~/lake", "-rf", "~x"):  # "~x" is a user's home folder: not the one of HOME with an x behind it
        assert make(copy, "clean", "CONFIRM=1", WIKISTREAM_HOME=home, HOME=str(user)).returncode == 0
    assert [(user / "lake").exists(), (copy / "-rf").exists(), (tmp_path / "userx").exists()] == [False, False, True]


@pytest.mark.parametrize(
    "text",
    [
        "`touch pwned`.jsonl",
        "$(touch pwned) $$HOME $x ${y} $(shell touch pwned)",
        '"; touch pwned; "',
        "'; touch pwned; '",
        "a\nb",
        "-x --help # \\",
    ],
)
@pytest.mark.parametrize("by", ["command line", "environment"])
def test_values_reach_the_command_letter_by_letter(copy: Path, by: str, text: str) -> None:
    (copy / ".venv" / "bin").mkdir(parents=True)
    command = copy / ".venv" / "bin" / "wikistream"
    command.write_text('#!/bin/sh\nprintf "<%s>" "$@" "$WIKISTREAM_HOME" "$CONFIRM"')
    command.chmod(0o755)
    (copy / ".venv" / ".ready").touch()
    values = dict.fromkeys(("SOURCE", "EVENTS", "CONFIRM", "WIKISTREAM_HOME"), text)
    given = [f"{name}={value}" for name, value in values.items()] if by == "command line" else []
    for target, options in {"demo": ("source", "events"), "up": ("source",), "dev": ("source",)}.items():
        said = make(copy, "-s", target, *given, **({} if given else values)).stdout
        assert said == "".join(f"<{part}>" for part in (target, *(f"--{name}={text}" for name in options), text, text))
    assert not (copy / "pwned").exists()
