"""What a server says when it does not serve the stream, and what the user can do about it.

Pure: from an answer or an error of requests to words. Text of the server is a stranger's: one line, printable, bounded.
"""

import html
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import orjson
import requests

_MOST_CHARACTERS: Final = 200
_JSON_FIELDS: Final = ("detail", "message", "error", "error_description", "reason", "title")
_TEMPORARY: Final = frozenset({408, 425, 429})
_MARKUP: Final = re.compile(r"<(script|style)\b.*?</\1>|<!--.*?-->", re.DOTALL | re.IGNORECASE)
_TITLE: Final = re.compile(r"<(title|h1)\b[^>]*>(.*?)</\1>", re.DOTALL | re.IGNORECASE)

_ADDRESS: Final = "check the address (WIKISTREAM_STREAM_URL)"
_LATER: Final = "it may pass by itself (https://www.wikimediastatus.net tells of outages); then start again"
_REMEDIES: Final = {
    401: f"this address asks for a login: {_ADDRESS}",
    403: "set WIKISTREAM_CONTACT to your e-mail address or a URL, as Wikimedia's User-Agent policy asks"
    " (https://foundation.wikimedia.org/wiki/Policy:User-Agent); if it is set, a proxy or firewall may be the one that refuses",
    404: _ADDRESS,
    407: "the proxy asks for a login: put user and password into HTTPS_PROXY, or name this host in NO_PROXY",
    410: _ADDRESS,
    429: "too many connections or too fast: stop other clients behind your IP address, wait, then start again",
}


@dataclass(frozen=True)
class Refusal:
    """Why a connection brought nothing.

    Attributes:
        reason: what happened, with the server's own words in quotes.
        remedy: what the user can do.
        lasting: asking again will not help.
        retry_after: seconds for which the server asks to be left alone; 0 if it does not.
    """

    reason: str
    remedy: str
    lasting: bool = False
    retry_after: float = 0.0


def from_status(response: requests.Response, body: bytes, *, resumed: bool) -> Refusal:
    """An answer that is not 200.

    Args:
        response: the answer.
        body: the beginning of its body.
        resumed: a position was sent along.
    """
    status = response.status_code
    if status == 400 and resumed:
        remedy = "the server does not take the position that was sent: docs/RUNBOOK.md, 'The source refuses', tells how to go on"
    elif status in _REMEDIES:
        remedy = _REMEDIES[status]
    else:
        remedy = _ADDRESS if 300 <= status < 500 and status not in _TEMPORARY else _LATER
    return Refusal(
        f"HTTP {status}{_redirected(response)}{_quoted(said(body))}",
        remedy,
        lasting=300 <= status < 500 and status not in _TEMPORARY,
        retry_after=_retry_after(response.headers.get("Retry-After", "")),
    )


def from_content(response: requests.Response, body: bytes) -> Refusal:
    """An answer of status 200 that is no event stream."""
    kind = one_line(response.headers.get("Content-Type", "")) or "no content type"
    page = "html" in kind.lower()
    remedy = f"a proxy or a login page may have answered in its place; open it in a browser, and {_ADDRESS}"
    return Refusal(
        f"it sends {kind}, not an event stream{_redirected(response)}{_quoted(said(body))}",
        remedy if page else _ADDRESS,
        lasting=True,
    )


def from_error(error: requests.RequestException) -> Refusal:
    """A connection that could not be made."""
    cause = one_line(str(_innermost(error))) or type(error).__name__
    if isinstance(error, (requests.exceptions.ProxyError, requests.exceptions.InvalidProxyURL)):
        return Refusal(f"the proxy failed: {cause}", "check HTTPS_PROXY and HTTP_PROXY, or name this host in NO_PROXY")
    if isinstance(error, requests.exceptions.SSLError):
        return Refusal(
            f"no trusted encryption: {cause}",
            "check this machine's clock; behind a proxy that opens TLS, set REQUESTS_CA_BUNDLE to its certificate",
        )
    if isinstance(error, requests.exceptions.TooManyRedirects):
        return Refusal(f"it redirects in a circle: {cause}", _ADDRESS)
    if isinstance(error, (requests.exceptions.InvalidHeader, ValueError)):  # a wrong address, or a header that is none
        return Refusal(f"it cannot be asked: {cause}", _ADDRESS, lasting=True)
    if isinstance(error, requests.Timeout):
        return Refusal(f"no answer in time: {cause}", "check the network, then start again")
    return Refusal(f"no connection: {cause}", "check the network and the address, then start again")


def from_frame(data: bytes) -> str:
    """What an ``event: error`` frame says."""
    return said(data) or "no reason given"


def said(body: bytes) -> str:
    """The first thing that a text, a JSON object or a page says to a person; empty if it says nothing."""
    with suppress(ValueError):
        document = orjson.loads(body)
        texts = _texts(document)
        return one_line(next(texts, "")) or one_line(body.decode(errors="replace"))
    text = body.decode(errors="replace")
    if re.search(r"<(!doctype|html|head|body|title|h1)\b", text, re.IGNORECASE):
        text = _MARKUP.sub(" ", text)
        found = _TITLE.search(text)
        return one_line(html.unescape(re.sub(r"<[^>]*>", " ", found[2] if found else text)))
    return one_line(next((line for line in text.splitlines() if line.strip()), ""))


def one_line(text: str) -> str:
    """``text`` without what a terminal or a log would obey, at most ``_MOST_CHARACTERS`` long."""
    words = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return words if len(words) <= _MOST_CHARACTERS else f"{words[:_MOST_CHARACTERS]}.."


def _texts(document: Any) -> Iterator[str]:
    """The texts of a JSON error in the order of how much they tell: RFC 9457, MediaWiki's and others' shapes."""
    if isinstance(document, str):
        yield document
    elif isinstance(document, dict):
        for field in _JSON_FIELDS:
            yield from (text for text in _texts(document.get(field)) if text.strip())
    elif isinstance(document, list) and document:
        yield from _texts(document[0])


def _quoted(text: str) -> str:
    return f': "{text}"' if text else ""


def _redirected(response: requests.Response) -> str:
    return f" after a redirect to {one_line(response.url)}" if response.history else ""


def _innermost(error: BaseException) -> BaseException:
    """The cause that a person can do something about: requests wraps urllib3's errors, which wrap the system's."""
    seen = {id(error)}
    while True:
        inner = getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((part for part in error.args if isinstance(part, BaseException)), None)
        inner = inner or error.__cause__
        if inner is None or id(inner) in seen:
            return error
        seen.add(id(inner))
        error = inner


def _retry_after(text: str) -> float:
    """``Retry-After`` in seconds, written as a number or as a date; 0 if it is neither."""
    with suppress(ValueError, OverflowError):
        return max(0.0, float(text))
    with suppress(ValueError, TypeError, OverflowError):
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    return 0.0
