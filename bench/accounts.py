"""What became of every line that the producer has read: what the generator makes anew, held against the tables."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, Final

from producer.sink import read_cursor
from producer.topics import EVENT_TOPICS
from producer.wikis import FOLLOWED_DOMAINS
from wikistream_assets.embedded import services, supervisor
from wikistream_assets.embedded.source import choose_source
from wikistream_assets.engine.gate_control import waiting_layers
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.query import query
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.stream import EDITS
from wikistream_assets.streams.edits.tables import RAW_EVENTS

_DRAIN_SECONDS: Final = 600.0
_LOOK_SECONDS: Final = 5.0


def stop_and_drain(settings: Settings, lake: Lakehouse, look: Callable[[], None], *, published: bool = True) -> None:
    """Stop the producer, and wait until Bronze has all of Kafka and no gate has anything left to look at.

    Args:
        look: called at each look whether it is so far.
        published: False where no cycle runs: Bronze alone is waited for.
    """
    supervisor.call(settings, "stopProcess", "producer")
    broker = Broker(settings.bootstrap_servers)
    ends = broker.ends(EVENT_TOPICS)
    deadline = time.monotonic() + _DRAIN_SECONDS
    while time.monotonic() < deadline:
        look()
        behind = broker.has_committed_records(lake.state(RAW_EVENTS).position, ends)
        if not behind and not (published and waiting_layers(lake.look(), EDITS)):
            return
        time.sleep(_LOOK_SECONDS)
    print(f"not at its end within {_DRAIN_SECONDS:.0f} s: {services.status(settings)}", flush=True)


def accounts_of(settings: Settings, lake: Lakehouse, *, published: bool = True) -> dict[str, int]:
    """Ids and malformed lines of the synthetic source up to the producer's cursor, against Bronze, dead letters and Silver.

    After ``stop_and_drain``; where that was for Bronze alone, without Silver.
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
    found = {"bronze": _ids(lake, "bronze.raw_events")}
    if published:
        found["silver"] = _ids(lake, "silver.cleaned_events") + _ids(lake, "quarantine.cleaned_events")
    accounts = {"sent": len(sent)}
    for layer, ids in found.items():
        accounts |= {f"lost in {layer}": len(sent - ids.keys()), f"doubled in {layer}": ids.total() - len(ids)}
    return accounts | {
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
