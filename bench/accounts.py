"""What became of every line that the producer has read: what the generator makes anew, held against the tables."""

from collections import Counter
from collections.abc import Mapping
from itertools import islice
from typing import Any

from producer.sink import read_cursor
from producer.wikis import FOLLOWED_DOMAINS
from wikistream_assets.embedded.source import choose_source
from wikistream_assets.resources.lakehouse import Lakehouse
from wikistream_assets.resources.query import query
from wikistream_assets.settings import Settings


def accounts_of(settings: Settings, lake: Lakehouse) -> dict[str, int]:
    """Ids and malformed lines of the synthetic source up to the producer's cursor, against Bronze, dead letters and Silver.

    The producer has to be stopped, and the rest published.
    """
    source = choose_source(settings, "synthetic").source  # the one it has: rate and seed are kept in the home
    cursor = read_cursor(settings.bootstrap_servers, source.identity)
    if cursor is None or source.generator is None:
        raise RuntimeError("the producer has committed nothing")
    lines = [
        (line.event_id, line.domain, line.defect) for line in islice(source.generator.lines(), cursor.counters.received)
    ]
    sent = {event_id for event_id, domain, _ in lines if event_id and domain in FOLLOWED_DOMAINS}
    malformed = sum(defect is not None for _, _, defect in lines)
    [(letters,)] = query(lake, "select count(*) from bronze.dead_letter").rows
    bronze = _ids(lake, "bronze.raw_events")
    silver = _ids(lake, "silver.cleaned_events") + _ids(lake, "quarantine.cleaned_events")
    return {
        "sent": len(sent),
        "lost in bronze": len(sent - bronze.keys()),
        "doubled in bronze": bronze.total() - len(bronze),
        "lost in silver": len(sent - silver.keys()),
        "doubled in silver": silver.total() - len(silver),
        "malformed": malformed,
        "lost in dead letters": max(0, malformed - letters),
        "doubled in dead letters": max(0, letters - malformed),
    }


def check(accounts: Mapping[str, Any]) -> None:
    """Nothing may be lost or doubled.

    Raises:
        SystemExit: something is; 1, with one line that says what.
    """
    if wrong := {
        name: number for name, number in accounts.items() if name.startswith(("lost in", "doubled in")) and number
    }:
        raise SystemExit(", ".join(f"{number} {name}" for name, number in wrong.items()))


def _ids(lake: Lakehouse, table: str) -> Counter[str]:
    return Counter(row[0] for row in query(lake, f"select event_id from {table}").rows)  # noqa: S608  # a name from above
