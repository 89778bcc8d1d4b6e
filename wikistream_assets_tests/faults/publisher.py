"""Publishes a lake's Gold tables over and over, as a process that a test kills: ``python -m .. HOME COUNT [one-by-one]``.

Each publication is numbered: its snapshots carry the number as their position. It goes on where the newest one stands. Prints the
number before it publishes.
"""

import os
import sys
from pathlib import Path
from typing import Final

from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.lake.state import AUDIT_PREFIX, summary_properties
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.tables import GOLD_TABLES

NUMBER: Final = "number"


def main(home: str, count: str, *how: str) -> None:
    lake = local_lake(Settings(home=Path(home)))
    first = lake.state(GOLD_TABLES[0]).position.get(NUMBER, 0) + 1
    for number in range(first, first + int(count)):
        branch = f"{AUDIT_PREFIX}{number}_{os.getpid()}"
        for spec in GOLD_TABLES:
            lake.create_branch(spec, branch)
            lake.append(spec, properties=summary_properties({NUMBER: number}, {}), branch=branch)
        print(number, flush=True)
        for together in [[spec] for spec in GOLD_TABLES] if how else [GOLD_TABLES]:
            lake.publish(together, branch)


if __name__ == "__main__":
    main(*sys.argv[1:])
