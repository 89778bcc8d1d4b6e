import gzip
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from producer.contract import Accepted, Contract
from producer.eventstreams import capture
from producer.exceptions import SourceError
from producer.sse import Frame
from wikistream_assets.settings import Settings
from wikistream_assets_tests.producer.samples import event, line

pytestmark = pytest.mark.local

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


def test_an_event_of_several_lines_becomes_one_line(tmp_path: Path) -> None:
    events = [event(meta_id=str(number)) for number in range(3)]
    with capture.Writer(tmp_path / "x.jsonl") as writer:
        for document in events:
            writer.write(Frame(json.dumps(document, indent=2).encode()))
    assert [json.loads(text) for text in (tmp_path / "x.jsonl").read_bytes().splitlines()] == events


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


KINDS: dict[str, bytes] = {
    "lines": b"%b\n%b\n",
    "no line end behind the last": b"%b\n%b",
    "blank lines": b"\n\n%b\n \n\n%b\n\n",
    "CR LF": b"%b\r\n%b\r\n",
    "CR": b"%b\r%b\r",
    "byte order mark": b"\xef\xbb\xbf%b\n%b\n",
    "array": b"[%b,%b]",
    "array over lines": b"[\n  %b,\n  %b\n]\n",
    "array with a mark": b"\xef\xbb\xbf[%b, %b]\n",
    "saved head": b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n%b\n%b\n",
    "saved head of a proxy too": b"HTTP/1.0 200 Connection established\r\n\r\nHTTP/2 200 \r\na: b\r\n\r\n%b\n%b\n",
    "frames": b":ok\n\nevent: message\ndata: %b\n\ndata: %b\n\n",
    "frames with CR": b"data: %b\r\rdata: %b\r\r",
    "frames with a mark and a head": b"HTTP/2 200\r\n\r\n\xef\xbb\xbfdata: %b\n\ndata: %b\n",
    "frames of other kinds": b"retry: 5\n\nevent: error\ndata: no\n\nevent: ping\ndata: 1\n\ndata: %b\n\ndata: %b\n\n",
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("name", ["x.jsonl", "X.JSONL", "events", "x.sse.gz", "x.json"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_file_is_says_its_content(tmp_path: Path, kind: str, name: str, packed: bool) -> None:
    events = [line(title='[a], {b} " c\\').encode(), line(meta_id="b").encode()]
    content = KINDS[kind] % tuple(events)
    (tmp_path / name).write_bytes(gzip.compress(content) if packed else content)
    assert [frame.data for frame in capture.read(tmp_path / name) if frame.data.strip()] == events


@pytest.mark.parametrize("indent", [1, 2, 4, "\t"])
@pytest.mark.parametrize("shape", ["objects", "array", "CR LF"])
def test_json_for_people_is_read(
    tmp_path: Path, indent: int | str, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "_PIECE_BYTES", 1_000)
    monkeypatch.setattr(capture, "_HEAD_BYTES", 500)
    events = [event(meta_id=str(number), comment='}] \\ "{[') for number in range(20)]
    texts = [json.dumps(document, indent=indent) for document in events]
    text = json.dumps(events, indent=indent) if shape == "array" else "\n".join(texts)
    (tmp_path / "x.json").write_bytes(text.replace("\n", "\r\n" if shape == "CR LF" else "\n").encode())
    assert [json.loads(frame.data) for frame in capture.read(tmp_path / "x.json")] == events


def test_what_is_no_object_between_objects_is_one_frame_each(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b'[{"a": 1}, null, "x{,]", 5\n, {"b": 2}, {"c": "broken off')
    assert [frame.data for frame in capture.read(tmp_path / "x.json")] == [
        *(b'{"a": 1}', b"null", b'"x{,]"', b"5", b'{"b": 2}', b'{"c": "broken off'),
    ]


def test_broken_lines_between_good_ones_stay_lines(tmp_path: Path) -> None:
    lines = [b'{"a": "broken', b'{"b": 1}', b"[1]", b"text", b'{"c": 2}']
    (tmp_path / "x.jsonl").write_bytes(b"\n".join(lines))
    assert [frame.data for frame in capture.read(tmp_path / "x.jsonl")] == lines


@pytest.mark.parametrize("content", [b"{", b'{"a": "cut', b'{"a": 1', b'{"a"}\n{]\n'])
def test_broken_events_are_the_pipelines_to_judge(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.jsonl").write_bytes(content)
    assert capture.inspect(tmp_path / "x.jsonl").frames == content.count(b"\n") or 1


OTHER_KINDS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "holds no event"),
    "blank": (b"\n\n  \n", "holds no event"),
    "comments": (b":ok\n\n: keep-alive\n\n", "holds no event"),
    "only errors": (b'event: error\ndata: {"message":"no broker"}\n\n', "no broker"),
    "UTF-16": ("\n".join([line()] * 3).encode("utf-16"), "iconv -f UTF-16"),
    "UTF-16 without a mark": ("\n".join([line()] * 3).encode("utf-16-le"), "iconv -f UTF-16"),
    "data: alone": (b"".join(b"data: %b\n" % line().encode() for _ in range(20)), "0 of 20 lines are events"),
    "log": (b"".join(b"12:00 INFO %b\n" % line().encode() for _ in range(7)), "0 of 7 lines are events"),
    "CSV": (b"id,domain,type\n1,en.wikipedia.org,edit\n", "0 of 2 lines are events: the file looks like a table"),
    "page": (b"<!DOCTYPE html>\n<html><body>404</body></html>\n", "web page"),
    "XML": (b'<?xml version="1.0"?>\n<a/>\n', "XML"),
    "TOML": (b'[project]\nname = "x"\n', "plain text"),
    "numbers": (b"1\n2\n3\n", "JSON without objects"),
    "array of numbers": (b"[1, 2, 3]\n", "JSON without objects"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "binary data"),
    "zstd": (b"\x28\xb5\x2f\xfd....", "zstd -d"),
    "zip": (b"PK\x03\x04....", "unzip"),
    "bzip2": (b"BZh9....", "bunzip2"),
    "gzip of a page": (gzip.compress(b"<html>x</html>"), "web page"),
}


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_a_file_of_another_kind_is_named_before_the_run(tmp_path: Path, kind: str) -> None:
    content, words = OTHER_KINDS[kind]
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(SourceError) as caught:
        capture.inspect(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert str(caught.value).isprintable()


def test_the_remedy_for_data_lines_works(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(OTHER_KINDS["data: alone"][0])
    with pytest.raises(SourceError, match=r"data: lines") as caught:
        capture.inspect(path)
    command = str(caught.value).split('"')[1]
    done = subprocess.run(["sh", "-c", f"{command} x.jsonl > y.jsonl"], cwd=tmp_path, check=False)
    assert done.returncode == 0
    assert capture.inspect(tmp_path / "y.jsonl").frames == 20


def test_errors_of_the_stream_are_remarks(tmp_path: Path) -> None:
    (tmp_path / "x.sse").write_bytes(b"data: {}\n\n" + b'event: error\ndata: {"message":"broker \\u001b down"}\n\n' * 5)
    found = capture.inspect(tmp_path / "x.sse")
    assert found.frames == 1
    assert found.remarks == (*['the capture reports an error of its stream: "broker down"'] * 3, ".. and 2 more")


@pytest.mark.parametrize("name", ["missing.jsonl", "missing.sse.gz", "no/such/folder.jsonl", "x" * 300, "a\0b"])
def test_a_wrong_path_is_one_line_of_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match="cannot be read") as caught:
        capture.inspect(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["event.jsonl", "events.json", "EVENTS.JSONL", "evnets.jsonl", "events.jsonl.gz"])
def test_a_near_match_is_offered(tmp_path: Path, name: str) -> None:
    (tmp_path / "events.jsonl").write_text(line())
    with pytest.raises(SourceError, match="did you mean") as caught:
        capture.inspect(tmp_path / name)
    assert f"did you mean {tmp_path / 'events.jsonl'}?" in str(caught.value)


def test_a_folder_is_no_capture(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").mkdir()
    (tmp_path / "x.jsonl" / "inside.SSE").touch()
    with pytest.raises(SourceError, match=r"is a folder and cannot be read.*inside\.SSE"):
        capture.inspect(tmp_path / "x.jsonl")


def test_a_pipe_is_no_capture_and_nobody_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    for path in (tmp_path / "pipe.jsonl", Path("/dev/null")):
        with pytest.raises(SourceError, match="is a pipe or a device"):
            capture.inspect(path)


def test_a_file_that_is_being_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(line() + "\n")
    whole = capture._frames

    def growing(path: Path) -> Iterator[Frame]:
        yield from whole(path)
        with path.open("a") as file:
            file.write(line() + "\n")

    monkeypatch.setattr(capture, "_frames", growing)
    with pytest.raises(SourceError, match="is being written"):
        capture.inspect(path)


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
