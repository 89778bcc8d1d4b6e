"""The resources of each environment: one map, chosen once by ``WIKISTREAM_ENV``, no fallback.

Dagster code asks for a resource by name and gets what its environment has; job bodies get plain objects and never see Dagster.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final

import dagster as dg
from dagster_pyspark import LazyPySparkResource
from pydantic import Field, PrivateAttr
from pyspark.sql import SparkSession

from wikistream_assets.alerts import Alerts
from wikistream_assets.embedded import services
from wikistream_assets.embedded.home import open_home
from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.embedded.spark import local_session
from wikistream_assets.embedded.stream import SupervisedStream
from wikistream_assets.engine.context import JobContext
from wikistream_assets.exceptions import ConfigurationError
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.settings import Settings, load_settings
from wikistream_assets.supervision.stream_control import StreamControl


class LocalSpark(LazyPySparkResource):
    """Spark in this process: one JVM for all steps of a run, started when the first step asks for it."""

    spark_config: dict[str, Any] = Field(default_factory=dict)

    @property
    def spark_session(self) -> SparkSession:
        return local_session(load_settings())


class LocalLakehouse(dg.ConfigurableResource[Any]):
    """The embedded Iceberg catalog and warehouse under ``WIKISTREAM_HOME``."""

    def open(self) -> Lakehouse:
        settings = load_settings()
        open_home(settings)
        return local_lake(settings)


class LocalBroker(dg.ConfigurableResource[Any]):
    """The embedded Kafka broker."""

    _held: ExitStack = PrivateAttr(default_factory=ExitStack)

    def connect(self) -> Broker:
        return Broker(load_settings().bootstrap_servers)

    def hold(self, report: Callable[[str], None]) -> bool:
        """Have the broker run until the end of this run, though no pipeline be up; tells whether it was started for that.

        Raises:
            BrokerError, SetupError, LakeError: as in ``services.up``.
        """
        settings = load_settings()
        if settings.bootstrap_servers != f"127.0.0.1:{settings.kafka_port}":
            return False  # somebody else's
        return self._held.enter_context(services.broker_at_hand(settings, report))

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Called by Dagster when the run has ended, however it did."""
        self._held.close()


class LocalNotifier(dg.ConfigurableResource[Any]):
    """The alert router of the home."""

    def open(self) -> Alerts:
        return Alerts(load_settings())


class LocalStream(dg.ConfigurableResource[Any]):
    """The continuous Bronze stream, kept running by the home's supervisord."""

    def control(self) -> StreamControl:
        return SupervisedStream(load_settings())


_LOCAL: Final[dict[str, Any]] = {
    "spark": LocalSpark(),
    "lakehouse": LocalLakehouse(),
    "broker": LocalBroker(),
    "notifier": LocalNotifier(),
    "stream": LocalStream(),
}


def resources_for(settings: Settings) -> dict[str, Any]:
    """The resources of the environment that ``settings`` name.

    Raises:
        ConfigurationError: an environment that runs on AWS; its EMR Serverless, MSK and S3 Tables resources are not built yet.
    """
    if settings.env != "local":
        raise ConfigurationError(
            f"WIKISTREAM_ENV={settings.env} runs on AWS, whose resources this version does not have: use WIKISTREAM_ENV=local"
        )
    return dict(_LOCAL)


def job_context(spark: LocalSpark, lakehouse: LocalLakehouse, run_id: str) -> JobContext:
    """What a job body needs, from the resources of a Dagster step."""
    return JobContext(spark=spark.spark_session, lake=lakehouse.open(), settings=load_settings(), run_id=run_id)
