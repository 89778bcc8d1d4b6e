"""What assets, sensors and jobs ask for, whatever the environment: each is the type of a resource of the same meaning."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from wikistream_assets.alerts import Alerts
from wikistream_assets.engine.step import Step
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.supervision.stream_control import StreamControl


class Compute(Protocol):
    """Resource ``compute``: carries steps out, in this process or elsewhere."""

    def run(self, step: Step) -> Mapping[str, Any]:
        """Carry the step out and wait for its end.

        Returns:
            What it says about itself. What it did stands in the lake: see ``engine.reports``.

        Raises:
            WikistreamError: it has failed.
        """
        ...


class Lake(Protocol):
    """Resource ``lake``: the tables."""

    def open(self) -> Lakehouse:
        """Open the lake now. Raises LakeError."""
        ...


class KafkaBroker(Protocol):
    """Resource ``broker``: where the stream's events wait."""

    def connect(self) -> Broker:
        """A client; connects when it is asked."""
        ...

    def hold(self, report: Callable[[str], None]) -> bool:
        """Have the broker run until the end of this run, though no pipeline be up; tells whether it was started for that.

        Raises:
            BrokerError, SetupError, LakeError: it cannot be started.
        """
        ...

    def absent(self) -> str | None:
        """Why there is no pipeline to follow, and what starts it; None where it is up."""
        ...


class Notifier(Protocol):
    """Resource ``notifier``: who is told when something needs a person."""

    def open(self) -> Alerts: ...


class StreamSupervisor(Protocol):
    """Resource ``stream_control``: what keeps the continuous Bronze stream running."""

    def control(self) -> StreamControl: ...
