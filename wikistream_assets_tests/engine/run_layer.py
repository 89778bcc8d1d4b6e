"""Run layers' jobs as a process of its own: ``python -m wikistream_assets_tests.engine.run_layer bronze_gate silver gold``.

For fault tests, which arm a failpoint in the environment and let this process kill itself, or kill it. Prints "ready" when the
session stands. ``backfill`` computes the day of the samples anew.
"""

import sys

from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.embedded.spark import local_session
from wikistream_assets.engine import bronze_gate, gold, silver
from wikistream_assets.engine.context import JobContext
from wikistream_assets.settings import load_settings
from wikistream_assets.upkeep import backfill
from wikistream_assets_tests.quality.samples import START

_JOBS = {
    "bronze_gate": bronze_gate.run,
    "silver": silver.run,
    "gold": gold.run,
    "backfill": lambda ctx: backfill.run(ctx, [START.date().isoformat()]),
}

if __name__ == "__main__":
    settings = load_settings()
    context = JobContext(local_session(settings), local_lake(settings), settings, run_id="killed")
    print("ready", flush=True)
    sys.exit(0 if all(_JOBS[layer](context).passed for layer in sys.argv[1:]) else 3)
