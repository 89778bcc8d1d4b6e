"""Hostile sources: little on the wire, much in memory. Measured in a process of its own, by its peak memory."""

import gzip
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from producer.contract import Contract, Reason, Rejected
from wikistream_assets_tests.producer.samples import line
from wikistream_assets_tests.producer.wire import HEAD, frame, wire

pytestmark = pytest.mark.local

BOMB_BYTES = 512 * 1024 * 1024
LIMIT_BYTES = 320 * 1024 * 1024
"""What a reader may use at most: itself, some copies of the longest line, its buffer of frames."""

MANY_LINES = b"x" * 4_089 + b"\ndata: "

_PEAK = """
def peak():
    # Not getrusage: what it tells begins with the peak of the process that started this one.
    with open("/proc/self/status") as status:
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
"""

_READ_STREAM = """
import sys
from producer.reader import Policy, Reader
policy = Policy(attempts=1, backoff_seconds=0.01, backoff_max_seconds=0.01, read_timeout_seconds=60, until_end=True)
reader = Reader(sys.argv[1], "test", None, policy)
reader.start()
longest = 0
while not reader.ended:
    for received in reader.take(10, 0.2):
        longest = max(longest, len(received.data))
print(longest, peak())
"""

_READ_CAPTURE = """
import sys
from pathlib import Path
from producer.eventstreams import capture
from producer.exceptions import SourceError
try:
    capture.inspect(Path(sys.argv[1]))
except SourceError as error:
    print(str(error).count("\\\\n"), peak())
"""


def bomb(unit: bytes) -> Iterator[bytes]:
    """``unit`` again and again, ``BOMB_BYTES`` of it."""
    block = unit * (1024 * 1024 // len(unit))
    for _ in range(BOMB_BYTES // len(block)):
        yield block


def compressed(head: bytes, unit: bytes, tail: bytes = b"") -> bytes:
    """The bomb as gzip, which is about a thousandth of it."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(
        [
            packer.compress(head),
            *(packer.compress(block) for block in bomb(unit)),
            packer.compress(tail),
            packer.flush(),
        ]
    )


def measured(script: str, argument: str) -> tuple[int, int]:
    """The two numbers that the script prints."""
    done = subprocess.run(
        [sys.executable, "-c", _PEAK + script, argument], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.split()
    return int(first), int(second)


@pytest.mark.parametrize("unit", [b"x", MANY_LINES], ids=["one endless line", "one event of endless lines"])
def test_a_stream_that_unpacks_to_much_more_than_it_sends(unit: bytes) -> None:
    body = compressed(b":ok\n\n" + frame(0, b"0").removesuffix(b"0\n\n"), unit, b"\n\n" + frame(1, b"1"))
    assert len(body) < BOMB_BYTES / 400
    head = HEAD.removesuffix(b"\r\n:ok\n\n") + b"Content-Encoding: gzip\r\n\r\n"
    with wire(head + body) as url:
        longest, peak = measured(_READ_STREAM, url)
    assert 1_000_000 < longest <= 16 * 1024 * 1024  # over the limit of an event: it ends as a dead letter
    assert peak < LIMIT_BYTES < BOMB_BYTES


@pytest.mark.parametrize(
    ("suffix", "unit"),
    [(".jsonl.gz", b"x"), (".sse.gz", b"x"), (".sse.gz", MANY_LINES)],
    ids=["line", "line of a frame", "lines of a frame"],
)
def test_a_capture_that_unpacks_to_much_more_than_the_file(tmp_path: Path, suffix: str, unit: bytes) -> None:
    path = tmp_path / f"bomb{suffix}"
    path.write_bytes(compressed(b"event: message\nid: []\ndata: " if "sse" in suffix else b"", unit))
    line_ends, peak = measured(_READ_CAPTURE, str(path))
    assert line_ends == 0
    assert peak < LIMIT_BYTES < BOMB_BYTES


@pytest.mark.parametrize(
    "text",
    [
        "[" * 500_000,
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        line(log_params=None).replace("null", "[" * 50_000 + "]" * 50_000, 1),
    ],
    ids=["never closed", "objects", "inside an event"],
)
def test_json_of_great_depth_is_a_dead_letter(text: str) -> None:
    verdict = Contract(None, max_event_bytes=4_000_000).judge(text)
    assert isinstance(verdict, Rejected)
    assert verdict.reason is Reason.NOT_JSON


def test_the_bomb_is_one() -> None:
    """The control: who unpacks it without a bound holds it whole."""
    assert len(gzip.decompress(compressed(b"", b"x"))) == BOMB_BYTES
