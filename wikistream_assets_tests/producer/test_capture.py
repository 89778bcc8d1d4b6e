import gzip
import json
from pathlib import Path

import pytest

from producer.contract import Accepted, Contract
from producer.eventstreams import capture
from producer.eventstreams.capture import Frame
from producer.exceptions import SourceError
from wikistream_assets.settings import Settings
from wikistream_assets_tests.producer.samples import line

pytestmark = pytest.mark.unit

FRAMES = [
    Frame(line(meta_id="a").encode(), b'[{"topic":"codfw.x","partition":0,"offset":1}]'),
    Frame(line(meta_id="b", title="é日本😀").encode(), b'[{"topic":"codfw.x","partition":0,"offset":2}]'),
    Frame(b'{"cut', b'[{"topic":"codfw.x","partition":0,"offset":3}]'),
]


def captures() -> Path:
    folder = Settings().data / "events"
    if not folder.is_dir():
        pytest.skip(f"no captures in {folder}: set WIKISTREAM_DATA to the folder of captures")
    return folder


@pytest.mark.parametrize("suffix", capture.SUFFIXES)
def test_written_is_read_back(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"some.name{suffix}"
    with capture.Writer(path) as writer:
        for frame in FRAMES:
            writer.write(frame)
    expected = FRAMES if "sse" in suffix else [Frame(frame.data) for frame in FRAMES]
    assert list(capture.read(path)) == expected
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert capture.inspect(path).frames == 3


@pytest.mark.parametrize("suffix", capture.SUFFIXES)
def test_what_was_received_before_a_failure_is_kept(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"

    def failing() -> None:
        with capture.Writer(path) as writer:
            writer.write(FRAMES[0])
            raise ConnectionError

    with pytest.raises(ConnectionError):
        failing()
    assert [frame.data for frame in capture.read(path)] == [FRAMES[0].data]


def test_nothing_received_leaves_nothing(tmp_path: Path) -> None:
    with capture.Writer(tmp_path / "x.sse.gz"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_no_capture_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("mine")
    with pytest.raises(SourceError, match="exists"):
        capture.Writer(path)
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    ("wire", "data"),
    [
        (b"data: a\n\n", [b"a"]),
        (b"data:a\n\n", [b"a"]),
        (b"data:  a\n\n", [b" a"]),
        (b":ok\n\n: keep-alive\n\nid: 1\n\nevent: message\ndata: a\n\n", [b"a"]),
        (b"data: {\ndata: }\n\n", [b"{\n}"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b"data: a\n\ndata: b", [b"a", b"b"]),
        (b"data: a\n\n\n\n\ndata: b\n\n", [b"a", b"b"]),
    ],
)
def test_frames_of_the_wire(tmp_path: Path, wire: bytes, data: list[bytes]) -> None:
    path = tmp_path / "x.sse"
    path.write_bytes(wire)
    assert [frame.data for frame in capture.read(path)] == data


def test_an_id_holds_until_the_next(tmp_path: Path) -> None:
    path = tmp_path / "x.sse"
    path.write_bytes(b"id: 1\ndata: a\n\ndata: b\n\nid: 2\ndata: c\n\n")
    assert [frame.event_id for frame in capture.read(path)] == [b"1", b"1", b"2"]


def broken(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / "x.jsonl.gz"
    whole = gzip.compress(b"".join(frame.data + b"\n" for frame in FRAMES) * 2_000)
    content = {
        "cut off": whole[: len(whole) // 2],
        "a byte changed": whole[:-6] + bytes([whole[-6] ^ 0xFF]) + whole[-5:],
        "no gzip": b"plain text",
        "rubbish inside": whole[:200] + b"\xff" * 200 + whole[400:],
        "a line without end": gzip.compress(b"x" * (capture.MAX_LINE_BYTES + 1)),
        "empty": gzip.compress(b"\n\n"),
    }
    path.write_bytes(content[kind])
    return path


@pytest.mark.parametrize(
    "kind", ["cut off", "a byte changed", "no gzip", "rubbish inside", "a line without end", "empty"]
)
def test_a_broken_capture_is_one_line_of_error(tmp_path: Path, kind: str) -> None:
    path = broken(tmp_path, kind)
    with pytest.raises(SourceError) as caught:
        capture.inspect(path)
    text = str(caught.value)
    assert str(path) in text
    assert ":" in text
    assert "\n" not in text


@pytest.mark.parametrize("name", ["missing.jsonl", "missing.sse.gz", "x.txt", "x.gz", "x.csv.gz", "x"])
def test_a_wrong_path_is_one_line_of_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError) as caught:
        capture.inspect(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_capture(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").mkdir()
    with pytest.raises(SourceError, match="cannot be read"):
        capture.inspect(tmp_path / "x.jsonl")


@pytest.mark.real_data
def test_the_real_wire_and_the_real_lines_are_the_same_1950_events() -> None:
    sse = list(capture.read(captures() / "recentchange_2021-08-27_1950.sse.gz"))
    lines = list(capture.read(captures() / "recentchange_2021-08-27_1950_sse.jsonl.gz"))
    assert len(sse) == len(lines) == 1_950
    for wire, row in zip(sse, lines, strict=True):
        document = json.loads(row.data)
        provenance = document.pop("x_provenance")
        assert json.loads(wire.data) == document
        assert wire.event_id == provenance["sse_id"].encode()


@pytest.mark.real_data
def test_every_real_event_meets_the_contract() -> None:
    contract = Contract(None, 1_000_000)
    for path in sorted(captures().iterdir()):
        frames = list(capture.read(path))
        verdicts = [contract.judge(frame.data) for frame in frames]
        assert {type(verdict) for verdict in verdicts} == {Accepted}, path.name
        assert [verdict.event_id for verdict in verdicts] == [json.loads(frame.data)["meta"]["id"] for frame in frames]
