"""The transforms need a session, but no lake: one for all their tests."""

import pytest
from pyspark.sql import SparkSession

from wikistream_assets.embedded.spark import local_session
from wikistream_assets.settings import Settings


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> SparkSession:
    """Return a session whose catalog is never used; it takes the place of the one that comes with an empty lake."""
    return local_session(Settings(home=tmp_path_factory.mktemp("transforms")))
