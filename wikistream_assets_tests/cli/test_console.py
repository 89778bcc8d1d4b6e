"""What is printed cannot harm: terminals, spreadsheets, parsers."""

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from wikistream_assets.cli.console import cell, csv_field, json_text, plain, printable

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
        ("\x9b31m", "\\x9b31m"),
        ("abc\u202egnp.exe", "abc\\u202egnp.exe"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("line\u2028break", "line\\u2028break"),
        ("tag\U000e0041", "tag\\U000e0041"),
        ("\ud800", "\\ud800"),
        ("\x00", "\\x00"),
    ],
)
def test_characters_a_terminal_obeys_are_written_out(hostile: str, shown: str) -> None:
    assert printable(hostile) == shown


@pytest.mark.parametrize("text", ["Zürich", "東京　都", "می‌خواهم", "👩‍🚀", "a\u00a0b", "=1+1", "[bold]x[/]"])
def test_what_people_write_stays(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize("value", ["=1+1", "+1", "-1", "@SUM(A1)", "＝1", '=HYPERLINK("x")'])
def test_csv_text_that_looks_like_a_formula_is_neutralised(value: str) -> None:
    assert csv_field(value) == f"'{value}"


@pytest.mark.parametrize("value", ["a=1", " x", "1-2", ""])
def test_other_csv_text_stays(value: str) -> None:
    assert csv_field(value) == value


@pytest.mark.parametrize("value", [-5, -0.5, Decimal("-1.5")])
def test_negative_numbers_are_no_formulas(value: object) -> None:
    assert csv_field(value) == value


def test_tab_and_carriage_return_cannot_hide_a_formula() -> None:
    assert csv_field("\t=1+1") == "\\t=1+1"
    assert csv_field("\r=1+1") == "\\r=1+1"


def test_json_is_valid_and_carries_the_exact_text() -> None:
    value = {"title": "\x1b[2J\u202e“ü”", "n": [1, None, 2.5], "at": datetime(2024, 3, 1, tzinfo=UTC)}
    text = json_text(value)
    assert text.isprintable()
    assert json.loads(text) == value | {"at": "2024-03-01T00:00:00Z"}


def test_json_has_no_words_that_are_not_json() -> None:
    assert json.loads(json_text([float("nan"), float("inf"), Decimal("1.5"), b"\x00\xff"])) == [None, None, 1.5, "00ff"]


def test_plain_values() -> None:
    assert [plain(v) for v in (None, True, 1.5, [1, "a"], "x")] == ["NULL", "true", "1.5", '[1, "a"]', "x"]
    assert plain(datetime(2024, 3, 1, 2, tzinfo=timezone(timedelta(hours=2)))) == "2024-03-01T02:00:00+02:00"


def test_long_cells_are_cut() -> None:
    assert len(cell("x" * 61)) == 60
    assert cell("x" * 61).endswith("…")
    assert cell("x" * 60) == "x" * 60
