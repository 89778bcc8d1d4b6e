"""Rules are measured on DataFrames: these tests need a Spark session, but no lake."""

import pytest
from pyspark.sql import SparkSession

from wikistream_assets.embedded.spark import local_session
from wikistream_assets.settings import Settings


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> SparkSession:
    """Return one session for all tests of this folder; no table is made in its home."""
    return local_session(Settings(home=tmp_path_factory.mktemp("quality") / "home"))
