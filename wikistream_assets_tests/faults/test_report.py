"""What of the runs of the fault cases comes into docs/RELIABILITY.md: the newest word on each test that there is."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from wikistream_assets_tests.faults import report
from wikistream_assets_tests.faults.report import PAGE, Case, Result, append, collected, main, page, passed_on, read

pytest_plugins = ["pytester"]

pytestmark = pytest.mark.local

_TESTS = """
import pytest

pytestmark = pytest.mark.faults

@pytest.fixture
def broken_before():
    raise OSError("no broker")

@pytest.fixture
def broken_after():
    yield
    raise OSError("the disk stays mounted")

def test_passes(): pass
def test_fails(): assert False
def test_cannot_begin(broken_before): pass
def test_cannot_clear_up(broken_after): pass
def test_is_skipped_amid_its_case(): pytest.skip("needs root")

@pytest.mark.skip(reason="needs a disk")
def test_is_skipped_before(): pass
"""

_CONFTEST = """
from wikistream_assets_tests.conftest import pytest_addoption
from wikistream_assets_tests.faults.conftest import pytest_runtest_makereport
"""


def result(test: str, *, passed: bool = True, commit: str = "c1", cases: Iterable[Case] = ()) -> Result:
    return Result(at="2026-11-22T10:00:00+00:00", commit=commit, test=test, passed=passed, cases=tuple(cases))


def case(fault: str) -> Case:
    return Case(number="8", fault=fault, control=False, tries=1, kills=1, sent=10, lost=0, doubled=0)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that takes the results of a test's own runs."""
    monkeypatch.setattr(report, "RESULTS", tmp_path / "build" / "faults.jsonl")
    return report.RESULTS


def test_what_breaks_before_or_after_a_case_is_a_result_too(pytester: pytest.Pytester, results: Path) -> None:
    pytester.makeconftest(_CONFTEST)
    pytester.makepyfile(test_some=_TESTS)
    pytester.makeini("[pytest]\nmarkers = faults")
    pytester.inline_run("--full", "-p", "no:cacheprovider")
    newest = {found.test.partition("::")[2]: found.passed for found in read()}
    assert newest == {
        "test_passes": True,
        "test_fails": False,
        "test_cannot_begin": False,
        "test_cannot_clear_up": False,
        "test_is_skipped_amid_its_case": False,
        "test_is_skipped_before": False,
    }


def test_the_newest_word_on_a_test_counts(results: Path) -> None:
    found = [result("a", cases=[case("killed")]), result("a", passed=False), result("b", cases=[case("cut off")])]
    text = page(found, {"a", "b"})
    assert "- NOT PASSED: `a`" in text
    assert "2 tests, 1 not passed" in text
    assert "killed" not in text, "of a pass that is not the last word"
    assert "| 8 | cut off | 1 | 10 | 0 | 0 | – |  |" in text


def test_a_test_that_no_longer_exists_shows_nothing() -> None:
    found = [result("renamed", cases=[case("killed")]), result("taken_out", passed=False), result("there")]
    text = page(found, {"there"})
    assert "1 tests, 0 not passed" in text
    assert "killed" not in text
    assert "taken_out" not in text
    assert "Last run: never" in page(found, set())


def test_a_row_of_another_commit_than_the_newest_says_so() -> None:
    control = replace(case("weak"), control=True, lost=3)
    found = [
        result("old", commit="c0", cases=[case("cut off"), control]),
        result("mended", commit="c1", passed=False, cases=[case("before")]),
        result("mended", commit="c2", cases=[case("killed")]),
        result("gone", commit="c3", cases=[case("renamed")]),
    ]
    text = page(found, {"old", "mended"})
    assert "Last run: 2026-11-22, commit c2; 2 tests (1 of them last run on another commit: c0), 0 not passed" in text
    assert "| 8 | cut off | 1 | 10 | 0 | 0 | – | c0 |" in text
    assert "| 8 | weak | 1 | 10 | 3 | 0 | c0 |" in text
    assert "| 8 | killed | 1 | 10 | 0 | 0 | – |  |" in text
    assert "on another commit:" not in page(found, {"mended"})


@pytest.fixture
def two_tests(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are the tests "a" and "b", and the page is a file of this test's own."""
    monkeypatch.setattr(report, "_ROOT", tmp_path)
    monkeypatch.setattr(report, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(report, "collected", lambda: {"a", "b"})


@pytest.mark.usefixtures("two_tests")
def test_what_has_not_passed_fails_the_report_until_it_passes() -> None:
    append(result("a"))
    append(result("taken_out", passed=False))
    main()
    append(result("b", passed=False))
    with pytest.raises(SystemExit, match=r"not passed:\nb$"):
        main()
    assert "- NOT PASSED: `b`" in report.PAGE.read_text(encoding="utf-8")
    append(result("b", cases=[replace(case("killed"), kills=200)]))
    main()


@pytest.mark.usefixtures("two_tests")
def test_a_full_run_that_kills_too_little_fails() -> None:
    append(result("a", cases=[replace(case("killed"), kills=199)]))
    main()  # "b" has not run
    append(result("b", cases=[replace(case("killed"), kills=9, control=True)]))
    with pytest.raises(SystemExit, match="199 kill -9 of a process at work: a full run makes at least 200"):
        main()
    append(result("b", cases=[case("cut off")]))
    main()


def test_a_run_that_goes_on_does_again_what_broke_after_its_pass() -> None:
    found = [
        result("a"),
        result("a", passed=False),
        result("b", passed=False),
        result("b"),
        result("c"),
        result("c", passed=False, commit="c2"),
    ]
    assert passed_on("c1", found) == {"b", "c"}


def test_the_tests_there_are() -> None:
    tests = collected()
    folder = "wikistream_assets_tests/faults"
    assert f"{folder}/test_late_faults.py::test_24_late_events_and_clock_jumps" in tests
    assert not any("test_report.py" in test for test in tests), "no fault, no case"


def test_the_page_explains_its_numbers_itself() -> None:
    explained = "number in the project's own catalogue of faults"
    assert explained in page([], set())
    assert explained in PAGE.read_text(encoding="utf-8")
