"""The names that code outside may rely on."""

import subprocess
import sys

import pytest

import wikistream_assets

pytestmark = pytest.mark.local


@pytest.mark.parametrize("name", wikistream_assets.__all__)
def test_each_public_name_is_there_and_documented(name: str) -> None:
    found = getattr(wikistream_assets, name)
    assert found.__doc__
    assert found.__name__ == name


def test_what_is_not_public_is_not_there() -> None:
    assert set(wikistream_assets._HOMES) == set(wikistream_assets.__all__)
    with pytest.raises(AttributeError, match="no attribute 'silver'"):
        _ = wikistream_assets.silver


def test_the_package_alone_costs_nothing() -> None:
    code = "import sys, wikistream_assets; print(sorted({'pyspark', 'dagster', 'pydantic', 'pyiceberg'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
