"""The resources of one machine."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, Final

import dagster as dg
from dagster_pyspark import LazyPySparkResource
from pydantic import Field, PrivateAttr
from pyspark.sql import SparkSession

from wikistream_assets.alerts import Alerts
from wikistream_assets.embedded import services
from wikistream_assets.embedded.spark import local_session
from wikistream_assets.embedded.stream import SupervisedStream
from wikistream_assets.engine.step import Step, execute
from wikistream_assets.environment.local import LocalEnvironment
from wikistream_assets.exceptions import BrokerError
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.settings import load_settings
from wikistream_assets.supervision.stream_control import StreamControl


class LocalCompute(LazyPySparkResource):
    """Steps in this process: one JVM for all steps of a run, started when the first of them asks for it."""

    spark_config: dict[str, Any] = Field(default_factory=dict)

    @property
    def spark_session(self) -> SparkSession:
        return local_session(load_settings())

    def run(self, step: Step) -> Mapping[str, Any]:
        return execute(step, LocalEnvironment(load_settings()))


class LocalLake(dg.ConfigurableResource[Any]):
    """The embedded Iceberg catalog and warehouse under ``WIKISTREAM_HOME``."""

    def open(self) -> Lakehouse:
        return LocalEnvironment(load_settings()).lake()


class LocalBroker(dg.ConfigurableResource[Any]):
    """The embedded Kafka broker."""

    _held: ExitStack = PrivateAttr(default_factory=ExitStack)

    def connect(self) -> Broker:
        return LocalEnvironment(load_settings()).broker()

    def hold(self, report: Callable[[str], None]) -> bool:
        settings = load_settings()
        if settings.bootstrap_servers != f"127.0.0.1:{settings.kafka_port}":
            return False  # somebody else's
        return self._held.enter_context(services.broker_at_hand(settings, report))

    def absent(self) -> str | None:
        settings = load_settings()
        if services.take_back_broker(settings):
            return "a run that was killed had left its broker, which has been stopped: 'make up' starts the pipeline"
        if services.broker_is_lent(settings):
            return "the broker runs for a single run only: 'make up' starts the pipeline"
        try:
            self.connect().refuse_absent()
        except BrokerError as error:
            return f"{error}; 'Materialize all' works without it"
        return None

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Called by Dagster when the run has ended, however it did."""
        self._held.close()


class LocalNotifier(dg.ConfigurableResource[Any]):
    """The alert router of the home."""

    def open(self) -> Alerts:
        return Alerts(load_settings())


class LocalStreamSupervisor(dg.ConfigurableResource[Any]):
    """The home's supervisord."""

    def control(self) -> StreamControl:
        return SupervisedStream(load_settings())


LOCAL_RESOURCES: Final[Mapping[str, Any]] = {
    "compute": LocalCompute(),
    "lake": LocalLake(),
    "broker": LocalBroker(),
    "notifier": LocalNotifier(),
    "stream_control": LocalStreamSupervisor(),
}
