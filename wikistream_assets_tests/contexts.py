"""Where a test's jobs run: in a given home, and what differs there."""

from collections.abc import Callable
from dataclasses import dataclass

from pyspark.sql import SparkSession

from wikistream_assets.engine.context import JobContext
from wikistream_assets.environment.local import LocalEnvironment
from wikistream_assets.settings import Settings
from wikistream_assets.streams.declaration import Stream
from wikistream_assets.streams.edits.stream import EDITS


def job_in(settings: Settings, run_id: str = "test", stream: Stream = EDITS) -> JobContext:
    """A job in the home of ``settings``."""
    return JobContext(LocalEnvironment(settings), run_id, stream)


@dataclass(frozen=True)
class _OtherSpark(LocalEnvironment):
    session: Callable[[], SparkSession]

    def spark(self, *, lasting: bool = False) -> SparkSession:
        return self.session()


def job_with(session: Callable[[], SparkSession], settings: Settings) -> JobContext:
    """A job that gets its session from ``session``, which is called when the job first asks for one."""
    return JobContext(_OtherSpark(settings, session), "test", EDITS)
