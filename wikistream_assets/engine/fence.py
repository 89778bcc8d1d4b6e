"""Appending to a table that one process at a time may write, so that nothing depends on there being only one.

Rows are written to a branch of the writer's own, and main is moved to it only if it still is what the branch was made from. If
main has moved, its position tells: the same as before means that maintenance was at work, and the rows are written once more; any
other means that somebody else has consumed them, and this writer is one that was taken for dead.
"""

import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

from pyspark.sql import DataFrame

from wikistream_assets.exceptions import BranchOutdatedError, WriterBusyError
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.spark_io import append_rows
from wikistream_assets.lake.state import BATCH_PREFIX, TableState
from wikistream_assets.tables.spec import TableSpec

_ATTEMPTS: Final = 5
"""Each is spoiled by another commit of maintenance, which makes a few an hour."""


class FencedTable:
    """A table as one writer sees it.

    Attributes:
        position: how far it has consumed.
    """

    def __init__(self, lake: Lakehouse, spec: TableSpec) -> None:
        self._lake, self._spec = lake, spec
        self._branch = f"{BATCH_PREFIX}{uuid.uuid4().hex[:8]}"
        self.position: Mapping[str, Any] = lake.state(spec).position

    def append(
        self,
        rows: DataFrame,
        position: Mapping[str, Any],
        properties: Mapping[str, str],
        amid: Callable[[], None] = lambda: None,
    ) -> None:
        """Append ``rows`` in one snapshot that moves the table to ``position``.

        Args:
            properties: of the snapshot; they hold the position.
            amid: called when the rows are on the branch and main has not moved.

        Raises:
            WriterBusyError: another process has written the table; nothing of ``rows`` is in it.
        """
        for attempt in range(_ATTEMPTS):
            state = self._lake.state(self._spec)
            self._require_mine(state)
            base = state.head_id()
            self._lake.create_branch(self._spec, self._branch, at=base)
            try:
                append_rows(rows, self._spec, properties, self._branch)
                amid()
                self._lake.advance(self._spec, self._branch, base)
            except BranchOutdatedError:
                if attempt == _ATTEMPTS - 1:
                    raise
            except Exception:
                self._require_mine(self._lake.state(self._spec))
                raise
            else:
                self.position = position
                return

    def _require_mine(self, state: TableState) -> None:
        if state.position != self.position:
            raise WriterBusyError(
                f"{self._spec.identifier} was written meanwhile, by another process: this one ends, start it again to go on"
            )
