"""What an environment gives to those who work in it. An environment is a class with these members; it need not inherit them."""

from contextlib import AbstractContextManager
from typing import Protocol

from pyspark.sql import SparkSession

from wikistream_assets.kafka.broker import Broker
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.settings import Settings


class Leases(Protocol):
    """Who may write. A lease ends with its block, or with the process that holds it, however that ends."""

    def hold(self, name: str) -> AbstractContextManager[None]:
        """Hold ``name``. Raises WriterBusyError, which names the holder, if somebody does."""
        ...

    def is_held(self, name: str) -> bool:
        """Whether somebody holds ``name`` right now."""
        ...

    def only_run(self, spark: SparkSession, name: str) -> AbstractContextManager[None]:
        """Hold ``name`` for what ``spark`` writes, too. Raises as ``hold``."""
        ...

    def no_jvm(self, name: str) -> AbstractContextManager[None]:
        """Hold what a session holds while it writes ``name``, without one; waits for one that outlives its Python."""
        ...

    def main_of(self, name: str) -> AbstractContextManager[None]:
        """Hold the right to move main of a layer's tables; waits for whoever has it."""
        ...

    def only_maintenance(self, name: str) -> AbstractContextManager[None]:
        """Be the only one to compact, expire, mask or roll back a layer's tables. Raises as ``hold``."""
        ...


class Secrets(Protocol):
    """What must not be in a setting, a log or the repository."""

    def user_key(self) -> bytes:
        """The key of the keyed hash that stands for IP users: 32 bytes. Raises LakeError if it is gone."""
        ...


class Environment(Protocol):
    """Where work is done.

    Attributes:
        settings: as they were loaded.
        leases / secrets: see there.
    """

    @property
    def settings(self) -> Settings: ...

    @property
    def leases(self) -> Leases: ...

    @property
    def secrets(self) -> Secrets: ...

    def lake(self) -> Lakehouse:
        """The lake, opened now. Raises LakeError."""
        ...

    def spark(self, *, lasting: bool = False) -> SparkSession:
        """The session on the lake; ``lasting`` says that it will run many cycles or batches. Raises SetupError."""
        ...

    def broker(self) -> Broker:
        """A client of the broker; connects when it is asked."""
        ...
