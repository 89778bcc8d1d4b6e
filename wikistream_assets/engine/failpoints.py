"""Named places at which a job kills itself, so that a fault test hits a boundary on purpose instead of by luck.

``WIKISTREAM_FAILPOINT=<name>`` arms one of them, ``<name>@3`` lets it pass twice before; the process ends by SIGKILL, without
any clean-up, and takes its JVM along (the JVM ends when its parent's pipe closes). The settings refuse it in production.

    ==========================  =====================================================================================
    name                        where
    ==========================  =====================================================================================
    bronze.after_offsets        the batch's offsets are in the checkpoint's log, nothing else is done
    bronze.after_dead_letters   the batch's dead letters are committed, its events are not
    bronze.before_commit        duplicates are found, the append of the events is next
    bronze.on_branch            the events are written on the writer's branch, main has not moved
    bronze.after_commit         events and position are committed, the checkpoint does not know it
    bronze.after_checkpoint     the checkpoint's commit log has the batch too
    gate.after_results          the Bronze gate's results are recorded, nothing is published
    gate.after_publish          the tag has moved, the mark of the range that was audited is still there
    *.after_branches            a publication's branches are built, nothing is audited; * is its layer, silver or gold
    *.after_results             the verdicts are recorded, nothing is published
    *.amid_publication          the new metadata is written, no table's pointer has moved; on a catalog that moves one table at a
                                time: the first is published, the others are not
    *.after_publish             all tables are published, the run does not know it
    masking.after_date          a date is masked, the other dates and the mark are not
    masking.after_manifests     every date is masked and the manifests are rewritten, the mark is missing
    maintenance.after_compact   small files are rewritten, nothing of the old is forgotten
    rollback.after_decision     who set back a table and why is recorded, nothing is set back
    rollback.after_table        a table is set back, those that follow from it are not
    relocate.after_table        a table's files name their new place, those of others and the catalog do not
    relocate.after_catalog      every path is rewritten, the home does not know its new place
    ==========================  =====================================================================================
"""

import os
import signal
from collections import Counter
from typing import Final

from wikistream_assets.settings import Settings

BRONZE_AFTER_OFFSETS: Final = "bronze.after_offsets"
BRONZE_AFTER_DEAD_LETTERS: Final = "bronze.after_dead_letters"
BRONZE_BEFORE_COMMIT: Final = "bronze.before_commit"
BRONZE_ON_BRANCH: Final = "bronze.on_branch"
BRONZE_AFTER_COMMIT: Final = "bronze.after_commit"
BRONZE_AFTER_CHECKPOINT: Final = "bronze.after_checkpoint"
GATE_AFTER_RESULTS: Final = "gate.after_results"
GATE_AFTER_PUBLISH: Final = "gate.after_publish"
AFTER_BRANCHES: Final = "after_branches"
AFTER_RESULTS: Final = "after_results"
AMID_PUBLICATION: Final = "amid_publication"
AFTER_PUBLISH: Final = "after_publish"
MASKING_AFTER_DATE: Final = "masking.after_date"
MASKING_AFTER_MANIFESTS: Final = "masking.after_manifests"
MAINTENANCE_AFTER_COMPACT: Final = "maintenance.after_compact"
ROLLBACK_AFTER_DECISION: Final = "rollback.after_decision"
ROLLBACK_AFTER_TABLE: Final = "rollback.after_table"
RELOCATE_AFTER_TABLE: Final = "relocate.after_table"
RELOCATE_AFTER_CATALOG: Final = "relocate.after_catalog"

_passed: Final[Counter[str]] = Counter()


def of_layer(layer: str, point: str) -> str:
    """The name of the failpoint ``point`` in the publication of ``layer``."""
    return f"{layer}.{point}"


def failpoint(settings: Settings, name: str) -> None:
    """Kill this process by SIGKILL if the settings arm the failpoint ``name`` and this is the pass they mean."""
    armed, _, times = settings.failpoint.partition("@")
    if armed != name:
        return
    _passed[name] += 1
    if _passed[name] == int(times or 1):
        os.kill(os.getpid(), signal.SIGKILL)
