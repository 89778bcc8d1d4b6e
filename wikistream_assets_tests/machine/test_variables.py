"""What a shell profile, a cron job or a container hands over does not reach what we run, and what it needs does."""

import getpass
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from wikistream_assets.machine.variables import adopt_for_libraries, built, user_name

pytestmark = pytest.mark.local

HOSTILE = {
    "SPARK_HOME": "/opt/spark",
    "SPARK_CONF_DIR": "/opt/spark/conf",
    "SPARK_LOCAL_IP": "10.9.8.7",
    "SPARK_LOCAL_DIRS": "/no/such/folder",
    "SPARK_MASTER": "yarn",
    "SPARK_REMOTE": "sc://127.0.0.1:1",
    "SPARK_SUBMIT_OPTS": "-Xbogus",
    "SPARK_DAEMON_JAVA_OPTS": "-Xbogus",
    "SPARK_TESTING": "1",
    "PYSPARK_PYTHON": "/no/such/python",
    "PYSPARK_DRIVER_PYTHON": "/no/such/python",
    "PYSPARK_SUBMIT_ARGS": "--master yarn pyspark-shell",
    "PYSPARK_GATEWAY_PORT": "1",
    "PYSPARK_GATEWAY_SECRET": "x",
    "HADOOP_CONF_DIR": "/etc/hadoop",
    "HADOOP_USER_NAME": "hdfs",
    "HADOOP_OPTS": "-Xbogus",
    "YARN_CONF_DIR": "/etc/hadoop",
    "KAFKA_OPTS": "-Xbogus",
    "KAFKA_HEAP_OPTS": "-Xmx1k",
    "CLASSPATH": "/no/such/folder/*",
    "_JAVA_OPTIONS": "-Duser.language=tr -Xbogus",
    "JAVA_TOOL_OPTIONS": "-Duser.language=tr -Xbogus",
    "JDK_JAVA_OPTIONS": "-Xbogus",
    "OPENJ9_JAVA_OPTIONS": "-Xbogus",
    "PYTHONPATH": "/opt/spark/python",
    "PYTHONHOME": "/no/such/folder",
    "PYTHONSTARTUP": "/no/such/file",
    "PYTHONOPTIMIZE": "2",
    "PYTHONWARNINGS": "error",
    "PYTHONIOENCODING": "ascii",
    "PYTHONINSPECT": "1",
    "DAGSTER_HOME": "/no/such/folder",
    "DAGSTER_GRPC_TIMEOUT_SECONDS": "0",
    "PYICEBERG_MAX_WORKERS": "many",
    "PYICEBERG_CATALOG__WIKISTREAM__URI": "thrift://nowhere:9083",
    "LANG": "tr_TR.UTF-8",
    "LC_CTYPE": "de_DE.ISO-8859-1",
    "LANGUAGE": "tr",
    "TMPDIR": "/no/such/folder",
    "BASH_ENV": "/no/such/file",
}

SET = {
    "PYTHONUTF8": ("0", "1"),
    "LC_ALL": ("tr_TR.UTF-8", "C.UTF-8"),
    "PATH": (".:bin::/opt/tools", "/opt/tools:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"),
    "PYICEBERG_HOME": ("/no/such/folder", str(Path(built.__code__.co_filename).parent)),
    "no_proxy": ("wikimedia.org", "wikimedia.org,localhost,127.0.0.1,::1"),
    "no_grpc_proxy": ("x", "x,localhost,127.0.0.1,::1"),
}

PASSED = {
    "JAVA_HOME": "/usr/lib/jvm/java-17",
    "https_proxy": "http://proxy:3128",
    "HTTPS_PROXY": "http://proxy:3128",
    "SSL_CERT_FILE": "/etc/ssl/ca.pem",
    "REQUESTS_CA_BUNDLE": "/etc/ssl/ca.pem",
    "AWS_PROFILE": "lake",
    "GOOGLE_APPLICATION_CREDENTIALS": "/etc/key.json",
    "WIKISTREAM_ALERT_SMTP_PASSWORD": "secret",  # pragma: allowlist secret
    "LD_LIBRARY_PATH": "/opt/lib",
    "LD_PRELOAD": "/opt/lib/jemalloc.so",
    "MALLOC_ARENA_MAX": "4",
    "OMP_NUM_THREADS": "1",
    "TZ": "Foo/Bar",
    "PYTHONUNBUFFERED": "1",
    "PYTHON_VERSION": "3.11.7",
    "LOG_DIR": "/var/log",
    "ENV": "prod",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_was_meant_for_others_is_dropped(name: str) -> None:
    assert name not in built({name: HOSTILE[name]})


@pytest.mark.parametrize("name", SET)
def test_what_our_programs_need_is_set(name: str) -> None:
    given, wanted = SET[name]
    assert built({name: given})[name] == wanted


@pytest.mark.parametrize("name", PASSED)
def test_what_is_the_users_to_say_passes(name: str) -> None:
    assert built({name: PASSED[name]})[name] == PASSED[name]


def test_all_at_once() -> None:
    given = HOSTILE | {name: given for name, (given, _) in SET.items()} | PASSED
    wanted = {name: wanted for name, (_, wanted) in SET.items()} | PASSED
    found = built(given)
    user = {name: found.pop(name) for name in ("HOME", "USER", "LOGNAME")}
    assert found == wanted | {"NO_PROXY": wanted["no_proxy"]}
    assert all(user.values())


def test_without_any_variable_there_are_a_home_a_user_and_a_path() -> None:
    found = built({})
    account = pwd.getpwuid(os.getuid())
    assert (found["HOME"], found["USER"], found["LOGNAME"]) == (account.pw_dir, account.pw_name, account.pw_name)
    assert "/bin" in found["PATH"].split(":")
    assert found["NO_PROXY"] == found["no_proxy"] == "localhost,127.0.0.1,::1"


def test_a_user_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 12_345_678)
    found = built({})
    assert (found["HOME"], found["USER"]) == ("/nonexistent", "uid12345678")
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    assert getpass.getuser() == user_name(os.environ) == "uid12345678"


def test_a_folder_for_temporary_files_that_can_be_used_stays(tmp_path: Path) -> None:
    assert built({"TMPDIR": str(tmp_path)})["TMPDIR"] == str(tmp_path)
    (tmp_path / "file").touch()
    assert "TMPDIR" not in built({"TMPDIR": str(tmp_path / "file")})


def test_no_proxy_for_anything_stays_so() -> None:
    assert built({"NO_PROXY": "*"})["no_proxy"] == "*"


def test_a_process_of_somebody_elses_keeps_what_concerns_python_and_dagster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        monkeypatch.delenv(name)
    for name, value in {**HOSTILE, "no_proxy": "x"}.items():
        monkeypatch.setenv(name, value)
    adopt_for_libraries()
    theirs = ("PYTHON", "DAGSTER_", "LANG", "LC_", "TMPDIR")
    assert {name: HOSTILE[name] for name in HOSTILE if name in os.environ} == {
        name: value for name, value in HOSTILE.items() if name.startswith(theirs)
    }
    assert os.environ["no_proxy"] == "x,localhost,127.0.0.1,::1"


_SHOWN = """
import os, sys
from wikistream_assets.machine import variables
variables.adopt()
import json
print(json.dumps([sys.flags.optimize, sys.warnoptions, "/planted" in sys.path, sys.getfilesystemencoding(), sys.argv[1:],
    sorted(name for name in os.environ if name.startswith("PYTHON"))]))
"""


@pytest.mark.parametrize(
    "given",
    [
        {"PYTHONOPTIMIZE": "2"},
        {"PYTHONWARNINGS": "error"},
        {"PYTHONPATH": "/planted"},
        {"PYTHONUTF8": "0", "LC_ALL": "C"},
        {"PYTHONINSPECT": "", "PYTHONOPTIMIZE": "1", "PYTHONPATH": "/planted", "PYTHONIOENCODING": "ascii"},
    ],
)
def test_a_program_that_python_started_misled_starts_again(given: dict[str, str]) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LC_", "LANG"))}
    command = [sys.executable, "-c", _SHOWN, "an argument", "Zürich"]
    done = subprocess.run(command, env=kept | given, capture_output=True, text=True, encoding="utf-8", check=True)
    assert done.stdout.splitlines() == ['[0, [], false, "utf-8", ["an argument", "Z\\u00fcrich"], ["PYTHONUTF8"]]']


def test_the_command_runs_under_a_foreign_python_setup(tmp_path: Path) -> None:
    """A ``typer.py`` of another installation on the path would be imported instead of ours."""
    (tmp_path / "typer.py").write_text("raise SystemExit('the wrong typer')")
    hostile = {"PYTHONPATH": str(tmp_path), "PYTHONWARNINGS": "error", "PYTHONOPTIMIZE": "2"}
    command = [sys.executable, "-m", "wikistream_assets", "--version"]
    done = subprocess.run(command, env=os.environ | hostile, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("wikistream 0.2.0\n", "", 0)


def test_a_broken_configuration_of_pyiceberg_is_not_read(tmp_path: Path) -> None:
    (tmp_path / ".pyiceberg.yaml").write_text("catalog: [broken")
    code = "import wikistream_assets.lake, pyiceberg.catalog as c; print(dict(c._ENV_CONFIG.config).keys())"
    hostile = {"HOME": str(tmp_path), "PYICEBERG_MAX_WORKERS": "many"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | hostile, capture_output=True, text=True, check=False)
    assert done.stdout == "dict_keys(['legacy-current-snapshot-id', 'home'])\n", done.stderr
