"""The one reader of server-sent events, fed in pieces of every size."""

import pytest

from producer import sse
from producer.sse import Frame, FrameReader

pytestmark = pytest.mark.unit

STREAMS: dict[bytes, list[Frame]] = {
    b"data: a\n\n": [Frame(b"a")],
    b"data:a\n\ndata:  b\n\n": [Frame(b"a"), Frame(b" b")],
    b":ok\n\n: keep-alive\n\nid: 1\n\nevent: message\ndata: a\n\n": [Frame(b"a", b"1")],
    b"data: {\ndata: }\n\n": [Frame(b"{\n}")],
    b"data: a\r\n\r\nid: 2\r\ndata: b\r\n\r\n": [Frame(b"a"), Frame(b"b", b"2")],
    b"data: a\r\rid: 2\rdata: b\r\r": [Frame(b"a"), Frame(b"b", b"2")],
    b"data: a\r\ndata: b\rdata: c\ndata: d\n\r\n": [Frame(b"a\nb\nc\nd")],
    b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n": [Frame(b"a")],
    b"\xef\xbb\xbf\ndata: a\n\n": [Frame(b"a")],
    b"id: 1\ndata: a\n\ndata: b\n\nid: 2\ndata: c\n\nid\ndata: d\n\n": [
        *(Frame(b"a", b"1"), Frame(b"b", b"1"), Frame(b"c", b"2"), Frame(b"d", b"")),
    ],
    b"id: 1\ndata: a\n\nid: \x00\ndata: b\n\n": [Frame(b"a", b"1"), Frame(b"b", b"1")],
    b"event: error\ndata: no\n\ndata: a\n\n": [Frame(b"no", kind="error"), Frame(b"a")],
    b"event: error\n\ndata: a\n\nevent:\ndata: b\n\n": [Frame(b"a"), Frame(b"b")],
    b"retry: 99999999999999999999999999\nretry: -1\nretry: x\ndata: a\n\n": [Frame(b"a")],
    b"data\n\ndata:\ndata:\n\n": [Frame(b""), Frame(b"\n")],
    b"what: ever\ndatax: 1\n data: 2\ndata: a\n\n": [Frame(b"a")],
    b"data: \xff\xfe\n\nevent: \xff\ndata: a\n\n": [Frame(b"\xff\xfe"), Frame(b"a", kind="\ufffd")],
    b"data: a\n\ndata: b\n": [Frame(b"a")],
    b"data: a\n\nid: 5\n": [Frame(b"a")],
}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1_000])
@pytest.mark.parametrize("stream", STREAMS, ids=repr)
def test_frames_are_the_standards_however_the_bytes_arrive(stream: bytes, size: int) -> None:
    reader = FrameReader()
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
    assert [frame for piece in [*pieces, b""] for frame in reader.feed(piece)] == STREAMS[stream]


@pytest.mark.parametrize(
    ("stream", "last"),
    [
        (b"data: a\n\ndata: b\n", Frame(b"b")),
        (b"data: a\n\nid: 3\ndata: b", Frame(b"b", b"3")),
        (b"data: a\n\nid: 5", None),
        (b"data: a\n\n", None),
        (b"", None),
    ],
)
def test_the_end_of_a_file_ends_the_last_frame(stream: bytes, last: Frame | None) -> None:
    reader = FrameReader()
    list(reader.feed(stream))
    assert reader.finish() == last


@pytest.mark.parametrize("size", [7, 50, 10_000])
def test_what_is_too_long_is_cut_and_says_so(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(sse, "MAX_FRAME_BYTES", 100)
    stream = b"data: " + b"x" * 1_000 + b"\n\n" + b"data: 12345\n" * 50 + b"\ndata: a\n\n"
    reader = FrameReader()
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
    line, lines, good = [frame for piece in pieces for frame in reader.feed(piece)]
    assert (line.data, line.cut) == (b"x" * 94, True)
    assert lines.data.startswith(b"12345\n12345")
    assert len(lines.data) < 100
    assert lines.cut
    assert good == Frame(b"a")
