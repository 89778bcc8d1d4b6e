"""One machine: everything under ``WIKISTREAM_HOME``, no account, no container."""

from dataclasses import dataclass

from pyspark.sql import SparkSession

from wikistream_assets.embedded.home import open_home, user_key
from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.embedded.leases import LocalLeases
from wikistream_assets.embedded.spark import local_session
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.settings import Settings


@dataclass(frozen=True)
class LocalSecrets:
    """The files in the home's folder ``secrets``."""

    settings: Settings

    def user_key(self) -> bytes:
        return user_key(self.settings)


@dataclass(frozen=True)
class LocalEnvironment:
    """The embedded default."""

    settings: Settings

    @property
    def leases(self) -> LocalLeases:
        return LocalLeases(self.settings)

    @property
    def secrets(self) -> LocalSecrets:
        return LocalSecrets(self.settings)

    def lake(self) -> Lakehouse:
        open_home(self.settings)
        return local_lake(self.settings)

    def spark(self, *, lasting: bool = False) -> SparkSession:
        return local_session(self.settings, lasting=lasting)

    def broker(self) -> Broker:
        return Broker(self.settings.bootstrap_servers)
