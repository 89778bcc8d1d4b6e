"""The Dagster UI that takes orders from its own pages only: Dagster's web server behind a check of where each request comes from.

A browser lets any page that a person visits send requests to loopback, and the UI has no login. Dagster's own server runs
mutations sent by GET and answers to any host name, so an image tag elsewhere could launch jobs. Everything that is private to
Dagster's web server stands in this module. ``python -m wikistream_assets.instance.ui_server --port N --workspace PATH``.
"""

import argparse
from typing import Any, Final

import uvicorn
from dagster_webserver.cli import (
    DEFAULT_DB_STATEMENT_TIMEOUT,
    DEFAULT_POOL_MAX_OVERFLOW,
    DEFAULT_POOL_RECYCLE,
    _lifespan,
)
from dagster_webserver.version import __version__
from dagster_webserver.webserver import DagsterWebserver
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from wikistream_assets.instance.dagster_private import WorkspaceFileTarget, WorkspaceProcessContext, configure_loggers
from wikistream_assets.instance.home import dagster_instance
from wikistream_assets.settings import load_settings

_ADDRESS: Final = "127.0.0.1"
_NAMES: Final = (_ADDRESS, "localhost", "[::1]")
_HTTP_PORT: Final = 80
"""A browser leaves it out."""

_POLL_MILLISECONDS: Final = 2_000
"""How often a page asks for news of its tables: the default of Dagster's command line."""

_READING: Final = ("GET", "HEAD")

_ANSWER_HEADERS: Final = {
    # Two headers for one thing: old browsers know the second only.
    "Content-Security-Policy": "frame-ancestors 'self'",
    "X-Frame-Options": "SAMEORIGIN",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""No other page may show the UI in a frame, keep a handle on its window or embed what it answers."""


class OwnPagesOnly:
    """ASGI middleware that refuses what a page of another origin may have sent.

    A request passes if its ``Host`` is one of the UI's own names (a rebound name is not), its ``Origin``, where there is one, is
    that same host, and ``Sec-Fetch-Site`` does not say that another site sent it; a link from elsewhere may open a page. What is
    not a GET has to be ``application/json``, which no form can send and no script of another origin without a preflight.
    A client that is no browser sends neither ``Origin`` nor ``Sec-Fetch-Site``, and passes.
    """

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app = app
        self._hosts = [f"{name}:{port}" for name in _NAMES] + (list(_NAMES) if port == _HTTP_PORT else [])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        reason = self._reason_to_refuse(scope)
        if reason is None:
            await self._app(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await WebSocketClose(reason=reason)(scope, receive, send)
        else:
            await PlainTextResponse(f"{reason}\n", 403)(scope, receive, _with_headers(send))

    def _reason_to_refuse(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        hosts = [host.lower() for host in headers.getlist("host")]
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            names = ", ".join(self._hosts)
            return f"this UI answers to {names} only: open one of these, and forward a port under the same number"
        if any(origin.lower() != f"http://{hosts[0]}" for origin in headers.getlist("origin")):
            return "this UI takes nothing from pages of another origin: open the UI itself"
        method = scope.get("method", "GET")  # a WebSocket has none
        if not _sent_by_own_page(headers, method):
            return "this UI takes nothing from pages of another site: open the UI itself"
        if method not in _READING and _media_type(headers) != "application/json":
            return f"this UI takes a {method} with the header 'Content-Type: application/json' only"
        return None


class GuardedWebserver(DagsterWebserver[WorkspaceProcessContext, Any]):
    """Dagster's web server with ``OwnPagesOnly`` around it; it executes no GraphQL that is sent by GET."""

    def __init__(self, context: WorkspaceProcessContext, port: int) -> None:
        self._port = port
        super().__init__(context, live_data_poll_rate=_POLL_MILLISECONDS)

    def build_middleware(self) -> list[Middleware]:
        return [Middleware(OwnPagesOnly, port=self._port), *super().build_middleware()]

    async def graphql_http_endpoint(self, request: Request) -> Response:
        """GraphQL by POST, and the page to try it on, which Dagster gives to whoever accepts HTML.

        Here and not in the middleware: the route decides which spellings of the path lead here.
        """
        if request.method in _READING and "text/html" not in request.headers.get("Accept", ""):
            return PlainTextResponse("GraphQL is taken by POST only\n", 405, headers={"Allow": "POST"})
        answer: Response = await super().graphql_http_endpoint(request)
        return answer


def _sent_by_own_page(headers: Headers, method: str) -> bool:
    """What the browser says of the page that sent the request: this one, none at all, or one with a link to a page of the UI."""
    site = headers.get("sec-fetch-site", "none")
    followed_link = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == ("navigate", "document")
    return site in ("same-origin", "none") or (followed_link and method in _READING)


def _media_type(headers: Headers) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def _with_headers(send: Send) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _ANSWER_HEADERS.items():
                headers.append(name, value)
        await send(message)

    return wrapped


def main(arguments: list[str] | None = None) -> None:
    """Serve the UI of this home on a loopback port until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m wikistream_assets.instance.ui_server", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="loopback port to listen on")
    parser.add_argument("--workspace", required=True, help="workspace.yaml: where the code locations are")
    given = parser.parse_args(arguments)
    configure_loggers()
    with dagster_instance(load_settings()) as instance:
        instance.optimize_for_webserver(DEFAULT_DB_STATEMENT_TIMEOUT, DEFAULT_POOL_RECYCLE, DEFAULT_POOL_MAX_OVERFLOW)
        target = WorkspaceFileTarget(paths=[given.workspace])
        with WorkspaceProcessContext(instance, workspace_load_target=target, version=__version__) as context:
            app = GuardedWebserver(context, given.port).create_asgi_app(lifespan=_lifespan)
            uvicorn.run(app, host=_ADDRESS, port=given.port, log_level="warning")


if __name__ == "__main__":
    main()
