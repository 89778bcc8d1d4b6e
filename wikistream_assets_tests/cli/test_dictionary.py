"""The data dictionary says what the contracts say, and the repository's copy is not stale."""

from pathlib import Path

import pytest

from wikistream_assets.cli.dictionary import DICTIONARY, dictionary_text
from wikistream_assets.streams.registry import ALL_TABLES
from wikistream_assets.tables.spec import TableSpec
from wikistream_assets_tests.cli.runner import wikistream

pytestmark = pytest.mark.local

REPOSITORY = Path(__file__).parents[2]


def test_committed_dictionary_is_what_the_contracts_say() -> None:
    assert (REPOSITORY / DICTIONARY).read_text(encoding="utf-8") == dictionary_text()


@pytest.mark.parametrize("spec", ALL_TABLES, ids=lambda spec: spec.identifier)
def test_section_has_every_column_and_every_rule(spec: TableSpec) -> None:
    section = dictionary_text().split(f"\n## {spec.identifier}\n")[1].split("\n## ")[0]
    lines = [[part.strip() for part in line.replace("\\|", "/").strip("|").split("|")] for line in section.splitlines()]
    rows = {line[0].strip("`"): line for line in lines if line[0].startswith("`")}
    assert list(rows) == [*spec.column_names, *(rule.name for rule in spec.rules)]
    for column in spec.columns:
        assert rows[column.name][1] == column.type
    for rule in spec.rules:
        assert rows[rule.name][1:3] == [rule.dimension.value, rule.severity.value]
        assert len(rows[rule.name]) == 7


def test_check_finds_a_stale_file(tmp_path: Path) -> None:
    path = tmp_path / "docs" / "D.md"
    missing = wikistream("dictionary", "--check", "--path", str(path))
    assert missing.returncode == 1
    assert not path.exists()
    assert wikistream("dictionary", "--path", str(path)).returncode == 0
    assert wikistream("dictionary", "--check", "--path", str(path)).returncode == 0
    path.write_text(path.read_text(encoding="utf-8").replace("event's UUID", "id"), encoding="utf-8")
    stale = wikistream("dictionary", "--check", "--path", str(path))
    assert stale.returncode == 1
    assert stale.stderr.startswith("error: ")
    assert "wikistream dictionary" in stale.stderr
