"""The control of the producer's fault cases: a producer as it is commonly written, seen to lose and to double.

``python -m wikistream_assets_tests.faults.weak_producer URL BOOTSTRAP POSITION_FILE ORDER DIE_AT``: acknowledged records, no
transaction, the position in a file written after each batch (``after``), before it (``before``) or nowhere (``memory``). With
DIE_AT > 0 it kills itself in batch DIE_AT, between the records and the position.
"""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from confluent_kafka import Producer

from producer.contract import Accepted, Contract
from producer.envelope import Envelope
from producer.reader import Policy, Reader, Received
from producer.topics import RAW_EVENTS
from producer.wikis import FOLLOWED_DOMAINS

BATCH = 100


def main(url: str, bootstrap: str, file: Path, order: str, die_at: int) -> None:
    last = file.read_text() if file.exists() else None
    reader = Reader(url, "weak", last, Policy(until_end=True))
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "log_level": 0})
    reader.start()
    batch: list[Received] = []
    number = 0
    while not reader.ended or batch:
        batch += reader.take(BATCH - len(batch), 0.1)
        if len(batch) < BATCH and not reader.ended:
            continue
        number += 1
        for step in _steps(order):
            if step == "send":
                _send(producer, batch)
            elif step == "die" and number == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            elif step == "note" and batch:
                file.write_text(batch[-1].event_id)
        batch = []


def _steps(order: str) -> Sequence[str]:
    return {"after": ("send", "die", "note"), "before": ("note", "die", "send"), "memory": ("send", "die")}[order]


def _send(producer: Producer, batch: list[Received]) -> None:
    contract, envelope = Contract(FOLLOWED_DOMAINS, 1_000_000), Envelope("local", "weak", "synthetic")
    for received in batch:
        verdict = contract.judge(received.data if received.original is None else received.original)
        if isinstance(verdict, Accepted):
            value = envelope.event_value(verdict.event_id, received.data)
            producer.produce(RAW_EVENTS, key=verdict.event_id, value=value)
    producer.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
