"""Whether the continuous Bronze stream runs, and its restart, exactly once however many ask for it.

``StreamControl`` is the same for every environment: locally supervisord keeps the stream running, elsewhere a service does.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True)
class StreamState:
    """The stream as its keeper sees it; that it runs does not mean that it gets anything done.

    Attributes:
        running: a process is there.
        instance: names that very process, e.g. ``4711:1767225600``; None if there is none.
        since: when it started, or if it does not run, when it ended; None if never.
        died: when the instance before it ended, if its keeper has started it again by itself; None for a first one.
        detail: one line for a person.
    """

    running: bool
    instance: str | None
    since: datetime | None
    died: datetime | None
    detail: str


class StreamControl(Protocol):
    """What a sensor needs of the stream's keeper."""

    def state(self) -> StreamState:
        """Return the state as it is now; does not raise because the stream or its keeper is down."""
        ...

    def restart(self, instance: str | None) -> bool:
        """Have the stream restarted if it is still this instance.

        Args:
            instance: as ``state`` gave it; None starts a stream that has been given up.

        Returns:
            Whether this call restarted it; False if somebody else has, or if there is no keeper.
        """
        ...
