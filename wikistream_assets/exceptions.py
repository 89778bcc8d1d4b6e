"""Every error that WikiStream raises on purpose.

    WikistreamError            one line for the user: what is wrong, and how to mend it
    ├── ConfigurationError     a setting or an argument is wrong
    ├── SetupError             Java, jars or a registry: the machine is not ready
    ├── BrokerError            the Kafka broker cannot be started or reached
    ├── LakeError              the lake's files or catalog are not as expected
    │   ├── ClockBehindError   the machine's clock is behind a table's newest commit
    │   ├── WriterBusyError    another process owns the table's only writer's place
    │   └── BranchOutdatedError  main has moved since a branch was made
    ├── ConditionError         a condition on rows is not of the grammar
    ├── GateError              a gate's operation (a decision, a publication) cannot be carried out
    ├── StepError              a step ended, and the lake does not show that it did its work
    ├── NewsNotKeptError       an alert cannot be written to the home's store
    └── DeliveryError          an alert cannot be sent
        ├── ChannelDownError   the channel takes nothing now
        └── NoticeRefusedError the channel does not take this one

A failed quality check is not an error: it is a ``CheckOutcome``.
"""


class WikistreamError(Exception):
    """Base class. Its text is shown to the user as it is, so it names the cause and the fix in one line."""


class ConfigurationError(WikistreamError):
    """A setting or an argument is wrong."""


class SetupError(WikistreamError):
    """Java, the jars or a package registry: the machine is not ready."""


class BrokerError(WikistreamError):
    """The Kafka broker cannot be started or reached."""


class LakeError(WikistreamError):
    """The lake's files or its catalog are not as expected."""


class ClockBehindError(LakeError):
    """The clock is behind a table's newest commit by more than Iceberg allows: wait until it has passed it, or set it right."""


class WriterBusyError(LakeError):
    """Another process holds the table's writer lock."""


class BranchOutdatedError(LakeError):
    """Main has moved since the branch was made, so it cannot be moved there: build the branch again."""


class ConditionError(WikistreamError):
    """A condition on rows is not of the grammar in ``quality.conditions``. The text says why; the caller says which."""


class GateError(WikistreamError):
    """A decision or a publication cannot be carried out."""


class StepError(WikistreamError):
    """A step ended, and the lake does not show that it did its work."""


class NewsNotKeptError(WikistreamError):
    """An alert could not be written to the home's store: whoever was to tell of it tries again."""


class DeliveryError(WikistreamError):
    """An alert cannot be sent."""


class ChannelDownError(DeliveryError):
    """The channel takes nothing now; ``retry_after`` are the seconds it asked to be left alone, 0 if it did not ask."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NoticeRefusedError(DeliveryError):
    """The channel does not take this notice."""
