"""Every error that the producer raises on purpose.

    ProducerError              one line for the user: what is wrong, and how to mend it; ``exit_code`` of the process
    ├── ProducerConfigError    a setting or an argument is wrong
    ├── SourceError            a capture or a stream cannot be read
    ├── KafkaError             the Kafka cluster cannot be reached or refuses the records
    └── FencedError            a newer producer of the same source has taken over

The package stands alone, so it does not share ``wikistream_assets.exceptions``.
"""

from typing import ClassVar


class ProducerError(Exception):
    """Base class. Its text is shown to the user as it is, so it names the cause and the fix in one line."""

    exit_code: ClassVar[int] = 1


class ProducerConfigError(ProducerError):
    """A setting or an argument is wrong."""

    exit_code = 2


class SourceError(ProducerError):
    """A capture or a stream cannot be read."""

    exit_code = 3


class KafkaError(ProducerError):
    """The Kafka cluster cannot be reached, or it refuses the records."""

    exit_code = 4


class FencedError(ProducerError):
    """A newer producer of the same source has taken over; nothing of the open batch was committed."""

    exit_code = 5
