"""What every job needs, and what every gate reports."""

from dataclasses import dataclass
from functools import cached_property

from pyspark.sql import SparkSession

from wikistream_assets.environment.ports import Environment, Leases
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.quality.criteria import Criteria
from wikistream_assets.quality.rule import CheckOutcome
from wikistream_assets.settings import Settings, load_criteria
from wikistream_assets.streams.declaration import Stream


@dataclass(frozen=True)
class JobContext:
    """Where a job runs and on whose behalf.

    Attributes:
        environment: gives what follows, each when it is first asked for.
        run_id: the Dagster run, or the command that ran the job; recorded with every verdict.
        stream: what the job is done to.
    """

    environment: Environment
    run_id: str
    stream: Stream

    @property
    def settings(self) -> Settings:
        return self.environment.settings

    @property
    def leases(self) -> Leases:
        return self.environment.leases

    @cached_property
    def lake(self) -> Lakehouse:
        return self.environment.lake()

    @cached_property
    def spark(self) -> SparkSession:
        """The session; the first to ask for it starts the JVM."""
        return self.environment.spark()

    @cached_property
    def user_key(self) -> bytes:
        """The secret for the keyed hash that stands for IP users in Gold, failing keys, alerts and exports."""
        return self.environment.secrets.user_key()

    @cached_property
    def criteria(self) -> Criteria:
        """What counts as large, risky and healthy, and the regions, read once for the whole job."""
        return load_criteria(self.settings)


@dataclass(frozen=True)
class SnapshotRange:
    """The snapshots of an upstream table after ``start`` up to and including ``end``: what one audit covers."""

    start: int
    end: int

    @property
    def empty(self) -> bool:
        return self.start == self.end


@dataclass(frozen=True)
class GateReport:
    """What a gate did: its verdicts, and whether it published.

    Attributes:
        layer: bronze, silver or gold.
        range: audited snapshots of the upstream table (of Bronze itself for the Bronze gate).
        outcomes: one verdict per rule of every audited table.
        advanced: whether this run made something new readable; False when there was nothing new, or the gate blocked.
    """

    layer: str
    range: SnapshotRange
    outcomes: tuple[CheckOutcome, ...]
    advanced: bool = False

    @property
    def blocking(self) -> tuple[CheckOutcome, ...]:
        """The verdicts that keep the range from being published."""
        return tuple(outcome for outcome in self.outcomes if outcome.status.blocks)

    @property
    def passed(self) -> bool:
        return not self.blocking
