"""Failpoints: named places at which a fault test lets the producer kill itself, because luck never hits the narrow ones.

``WIKISTREAM_FAILPOINT=producer.after_commit@3`` kills the process with SIGKILL the third time it passes that place; without
``@N`` the first time. Names of the producer:

- ``producer.after_produce``: the batch lies in the broker, its transaction is open;
- ``producer.after_commit``: the transaction is committed, nothing further has been read.

Nothing happens unless the variable is set, and settings refuse it in production.
"""

import os
import signal
from collections.abc import Callable

AFTER_PRODUCE = "producer.after_produce"
AFTER_COMMIT = "producer.after_commit"


class Failpoint:
    """The place that ``WIKISTREAM_FAILPOINT`` names, with the number of passes left."""

    def __init__(self, spec: str) -> None:
        self._name, _, times = spec.partition("@")
        self._left = int(times or 1)

    def reach(self, name: str, before: Callable[[], object] = lambda: None) -> None:
        """Pass the place ``name``; if its time has come, call ``before`` and die."""
        if name != self._name:
            return
        self._left -= 1
        if self._left == 0:
            before()
            os.kill(os.getpid(), signal.SIGKILL)
