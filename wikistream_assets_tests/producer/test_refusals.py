"""Every way in which a server refuses, over a real socket: its words and the remedy reach the user on one line."""

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from producer import refusals
from producer.exceptions import SourceError
from producer.reader import Policy, Reader
from wikistream_assets_tests.conftest import free_port
from wikistream_assets_tests.producer.wire import HEAD

pytestmark = pytest.mark.local

PATH = "/v2/stream/recentchange"
ONCE = Policy(attempts=1, backoff_seconds=0.01, backoff_max_seconds=0.01, read_timeout_seconds=2, until_end=True)

POLICY_403 = (
    b"Please set a user-agent and respect our robot policy https://w.wiki/4wJS. See also T400119.\nsecond line\n"
)
PAGE = b"<!DOCTYPE html><html><head><style>a{}</style><title>Sign in to &lt;Hotel&gt; WiFi</title></head><body>x</body></html>"
PROBLEM = b'{"type":"about:blank","title":"Bad","detail":"topic codfw.x is not known","status":404}'


def answer(status: str, body: bytes, *headers: str) -> bytes:
    """A whole HTTP answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@contextmanager
def answering(*answers: bytes) -> Iterator[str]:
    """A server that gives one answer after the other to one connection each, the last one again and again."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for number in range(1_000):
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65_536)
                    connection.sendall(answers[min(number, len(answers) - 1)])

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}{PATH}"
        listening.shutdown(socket.SHUT_RDWR)


def failure(url: str, last: str | None = None) -> str:
    """What the user is told."""
    reader = Reader(url, "test", last, ONCE)
    reader.start()
    while not reader.ended:
        reader.take(10, 0.1)
    assert isinstance(reader.failure, SourceError)
    text = str(reader.failure)
    assert text.isprintable()
    assert len(text) < 900
    return text


REFUSED = {
    "User-Agent policy": (answer("403 Forbidden", POLICY_403), ["HTTP 403", "respect our robot policy", "WIKISTREAM_CONTACT"]),
    "not there": (answer("404 Not Found", PROBLEM), ["HTTP 404", "topic codfw.x is not known", "WIKISTREAM_STREAM_URL"]),
    "gone": (answer("410 Gone", b""), ["HTTP 410", "WIKISTREAM_STREAM_URL"]),
    "proxy login": (answer("407 Proxy Authentication Required", b"who are you"), ["HTTP 407", "who are you", "HTTPS_PROXY"]),
    "too many": (answer("429 Too Many Requests", b"slow down", "Retry-After: 0"), ["HTTP 429", "slow down", "other clients"]),
    "MediaWiki's error": (
        answer("500 Internal Server Error", b'{"error":{"code":"x","info":"?","message":"DB is read-only"}}'),
        ["HTTP 500", "DB is read-only", "wikimediastatus"],
    ),
    "Varnish": (answer("503 Backend fetch failed", PAGE), ["HTTP 503", "Sign in to <Hotel> WiFi"]),
    "no location": (answer("302 Found", b"elsewhere"), ["HTTP 302", "elsewhere"]),
    "page": (
        answer("200 OK", PAGE, "Content-Type: text/html; charset=utf-8"),
        ["text/html", "Sign in to", "proxy or a login page"],
    ),
    "JSON": (
        answer("200 OK", b'{"message":"no such stream"}', "Content-Type: application/json"),
        ["application/json", "no such stream", "WIKISTREAM_STREAM_URL"],
    ),
    "no content type": (answer("200 OK", b"hello"), ["no content type", "hello"]),
    "error frame": (
        HEAD + b'event: error\ndata: {"origin":"KafkaSSE","message":"Topic not available"}\n\n',
        ["before any event", "Topic not available"],
    ),
    "only other frames": (HEAD + b"event: ping\ndata: 1\n\n", ["before any event", "'ping'"]),
    "hostile": (answer("403 Forbidden", b"\x1b[2J\x07\xff\xfe\xe2\x80\xae" + b"x" * 9_999), ["HTTP 403", "xxxx"]),
    "not HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n", ["no connection", "SSH-2.0"]),
    "closed": (b"", ["no connection", "check the network"]),
    "a header without end": (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, ["no connection"]),
    "too many headers": (b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 500 + b"\r\n", ["no connection"]),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_keeps_the_servers_words_and_names_a_remedy(name: str) -> None:
    response, words = REFUSED[name]
    with answering(response) as url:
        text = failure(url)
    assert [word for word in words if word not in text] == [], text


def test_a_position_that_is_not_taken_leads_to_the_runbook() -> None:
    last = '[{"topic":"codfw.mediawiki.recentchange","partition":0,"offset":5}]'
    with answering(answer("400 Bad Request", b"no such topic")) as url:
        assert "RUNBOOK.md" in failure(url, last)
        assert "WIKISTREAM_STREAM_URL" in failure(url)
    runbook = (Path(__file__).parents[2] / "docs" / "RUNBOOK.md").read_text(encoding="utf-8")
    assert "## The source refuses" in runbook


def test_a_redirect_is_named() -> None:
    page = answer("200 OK", PAGE, "Content-Type: text/html")
    with answering(page) as login, answering(answer("302 Found", b"", f"Location: {login}")) as url:
        assert f"after a redirect to {login}" in failure(url)
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with answering(answer("302 Found", b"", f"Location: http://127.0.0.1:{port}{PATH}")) as url:
        assert "Connection refused" in failure(url)


def test_a_circle_of_redirects_ends() -> None:
    with answering(answer("302 Found", b"", f"Location: {PATH}")) as url:
        assert "redirects in a circle" in failure(url)


def test_a_certificate_that_nobody_signed(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def shake_hands() -> None:
            connection, _ = listening.accept()
            with connection, pytest.raises(ssl.SSLError):
                context.wrap_socket(connection, server_side=True)

        threading.Thread(target=shake_hands, daemon=True).start()
        text = failure(f"https://127.0.0.1:{listening.getsockname()[1]}{PATH}")
    assert "no trusted encryption" in text
    assert "certificate verify failed" in text
    assert "REQUESTS_CA_BUNDLE" in text


def test_a_proxy_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    text = failure("http://stream.invalid/v2/stream/recentchange")
    assert "the proxy failed" in text
    assert "HTTPS_PROXY" in text


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "stream.wikimedia.org", "http://", "http://[::1/x"])
def test_an_address_that_is_none(url: str) -> None:
    assert "WIKISTREAM_STREAM_URL" in failure(url)


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [("7", 7, 7), ("0", 0, 0), ("-5", 0, 0), ("nan", 0, 0), ("", 0, 0), ("soon", 0, 0), ("date", 80, 90)],
)
def test_retry_after_as_number_or_date(header: str, least: float, most: float) -> None:
    if header == "date":
        header = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert least <= refusals._retry_after(header) <= most
