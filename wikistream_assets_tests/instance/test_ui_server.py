"""Who may give the UI orders: each kind of request against Dagster's real app, with and without the check around it."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster_webserver.webserver import DagsterWebserver
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message

from wikistream_assets.embedded.programs import ui_command
from wikistream_assets.instance.ui_server import GuardedWebserver, OwnPagesOnly
from wikistream_assets.settings import Settings

pytestmark = pytest.mark.unit

PORT = 3000
OWN = f"127.0.0.1:{PORT}"
ORDER = 'mutation{shutdownRepositoryLocation(repositoryLocationName:"none"){__typename}}'
JSON = {"content-type": "application/json"}


class Sent:
    """What became of a request: the status (101: the WebSocket was opened), the answer's headers and its body."""

    def __init__(self, messages: list[Message]) -> None:
        kinds = {message["type"]: message for message in messages}
        start = kinds.get("http.response.start", {})
        self.status = 101 if "websocket.accept" in kinds else start.get("status", 403)
        self.headers = [(name.decode().lower(), value.decode()) for name, value in start.get("headers", ())]
        self.body = b"".join(message.get("body", b"") for message in messages).decode()

    @property
    def obeyed(self) -> bool:
        """Dagster executed the order, which is about a code location that there is not."""
        return "LocationNotFound" in self.body


def send(
    app: ASGIApp,
    method: str = "POST",
    path: str = "/graphql",
    query: str = "",
    headers: Mapping[str, str] | list[tuple[str, str]] | None = None,
    body: str = "",
) -> Sent:
    """Give the app a request (method ``WS``: a WebSocket's), as uvicorn does; ``host`` is the UI's own if none is given."""
    given = list(headers.items()) if isinstance(headers, Mapping) else headers or []
    if all(name != "host" for name, _ in given):
        given = [("host", OWN), *given]
    scope: dict[str, Any] = {
        "type": "websocket" if method == "WS" else "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in given],
        **({"subprotocols": ["graphql-ws"]} if method == "WS" else {"method": method, "http_version": "1.1"}),
    }
    arriving: list[Message] = (
        [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1001}]
        if method == "WS"
        else [{"type": "http.request", "body": body.encode(), "more_body": False}]
    )
    left: list[Message] = []

    async def receive() -> Message:
        return arriving.pop(0) if arriving else {"type": "http.disconnect"}

    async def keep(message: Message) -> None:
        left.append(message)

    asyncio.run(app(scope, receive, keep))  # type: ignore[arg-type]  # an ASGI app is awaited by a coroutine
    return Sent(left)


@pytest.fixture(scope="module")
def apps() -> Iterator[tuple[ASGIApp, ASGIApp]]:
    """Dagster's app as 'make dev' serves it, and as Dagster's own command line does."""
    with (
        dg.instance_for_test() as instance,
        WorkspaceProcessContext(instance, EmptyWorkspaceTarget()) as context,
    ):
        yield GuardedWebserver(context, PORT).create_asgi_app(), DagsterWebserver(context).create_asgi_app()


@pytest.fixture(scope="module")
def ui(apps: tuple[ASGIApp, ASGIApp]) -> ASGIApp:
    return apps[0]


@pytest.fixture(scope="module")
def bare(apps: tuple[ASGIApp, ASGIApp]) -> ASGIApp:
    return apps[1]


ORDER_IN_BODY = json.dumps({"query": ORDER})
TWO_OPERATIONS = f"query harmless {{ version }} {ORDER.replace('mutation', 'mutation order')}"
ORDERS: dict[str, dict[str, Any]] = {
    "an image": {"method": "GET", "query": f"query={ORDER}"},
    "an image, by the operation's name": {"method": "GET", "query": f"query={TWO_OPERATIONS}&operationName=order"},
    "an image, under another spelling of the path": {"method": "GET", "path": "/graphql\n", "query": f"query={ORDER}"},
    "an image of an own page": {"method": "GET", "query": f"query={ORDER}", "headers": {"sec-fetch-site": "same-origin"}},
    "a form": {"query": f"query={ORDER}", "headers": {"content-type": "application/x-www-form-urlencoded"}},
    "a form of files": {"query": f"query={ORDER}", "headers": {"content-type": "multipart/form-data; boundary=x"}},
    "a form of text": {"query": f"query={ORDER}", "headers": {"content-type": "text/plain"}},
    "a script without a body": {"query": f"query={ORDER}"},
    "text that says it is JSON": {"headers": {"content-type": "text/plain; application/json"}, "body": ORDER_IN_BODY},
    "GraphQL as such": {"headers": {"content-type": "application/graphql"}, "body": ORDER},
    "another host": {"headers": {"host": f"rebound.example:{PORT}", **JSON}, "body": ORDER_IN_BODY},
    "another port": {"headers": {"host": "127.0.0.1:3001", **JSON}, "body": ORDER_IN_BODY},
    "no port": {"headers": {"host": "127.0.0.1", **JSON}, "body": ORDER_IN_BODY},
    "a name that begins like ours": {"headers": {"host": f"localhost.example:{PORT}", **JSON}, "body": ORDER_IN_BODY},
    "any address": {"headers": {"host": f"0.0.0.0:{PORT}", **JSON}, "body": ORDER_IN_BODY},
    "two hosts": {"headers": [("host", OWN), ("host", "rebound.example"), *JSON.items()], "body": ORDER_IN_BODY},
    "another origin": {"headers": {"origin": "http://evil.example", **JSON}, "body": ORDER_IN_BODY},
    "another port of this host": {"headers": {"origin": "http://127.0.0.1:8000", **JSON}, "body": ORDER_IN_BODY},
    "another of our names": {"headers": {"origin": f"http://localhost:{PORT}", **JSON}, "body": ORDER_IN_BODY},
    "a sandbox or a file": {"headers": {"origin": "null", **JSON}, "body": ORDER_IN_BODY},
    "another scheme": {"headers": {"origin": f"https://{OWN}", **JSON}, "body": ORDER_IN_BODY},
    "another site": {"headers": {"sec-fetch-site": "cross-site", **JSON}, "body": ORDER_IN_BODY},
    "a neighbour of this site": {"headers": {"sec-fetch-site": "same-site", **JSON}, "body": ORDER_IN_BODY},
    "a form of another site, to the top": {
        "headers": {
            **JSON, "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document",
        },
        "body": ORDER_IN_BODY,
    },
}  # fmt: skip


@pytest.mark.parametrize("request_", ORDERS.values(), ids=list(ORDERS))
def test_an_order_that_another_page_may_have_sent_is_refused(
    ui: ASGIApp, bare: ASGIApp, request_: dict[str, Any]
) -> None:
    assert send(bare, **request_).obeyed, "Dagster's own server obeys"
    refused = send(ui, **request_)
    assert refused.status in (403, 405)
    assert not refused.obeyed
    assert len(refused.body.splitlines()) == 1


@pytest.mark.parametrize("host", [OWN, "localhost:3000", "LOCALHOST:3000", "[::1]:3000"])
def test_the_uis_own_pages_and_clients_that_are_no_browser_are_obeyed(ui: ASGIApp, host: str) -> None:
    own = {"host": host, "origin": f"http://{host}", "sec-fetch-site": "same-origin", **JSON}
    assert send(ui, headers=own, body=ORDER_IN_BODY).obeyed
    by_hand = {"host": host, "content-type": "application/json; charset=utf-8"}
    assert send(ui, headers=by_hand, body=ORDER_IN_BODY).obeyed


def test_a_port_that_browsers_leave_out_may_be_missing() -> None:
    ui = OwnPagesOnly(PlainTextResponse("a page"), 80)
    for host in ("localhost", "localhost:80"):
        assert send(ui, "GET", "/", headers={"host": host}).body == "a page"
    assert send(ui, "GET", "/", headers={"host": "evil.example"}).status == 403


def test_events_without_a_run_come_from_own_pages_only(ui: ASGIApp, bare: ASGIApp) -> None:
    made_up: dict[str, Any] = {"path": "/report_asset_materialization/gold/hourly_stats"}
    assert send(bare, **made_up).status == 200
    for headers in ({}, {"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}):
        assert send(ui, headers=headers, **made_up).status == 403
    assert send(ui, headers=JSON, body="{}", **made_up).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:8000"},
        {"origin": "null"},
        {"host": "rebound.example:3000", "origin": "http://rebound.example:3000"},
        {"origin": f"http://{OWN}", "sec-fetch-site": "cross-site"},
    ],
)
def test_a_websocket_is_opened_for_own_pages_only(ui: ASGIApp, bare: ASGIApp, headers: dict[str, str]) -> None:
    assert send(bare, "WS", headers=headers).status == 101
    assert send(ui, "WS", headers=headers).status == 403
    assert send(ui, "WS", headers={"origin": f"http://{OWN}", "sec-fetch-site": "same-origin"}).status == 101


def test_a_page_can_be_opened_by_a_link_but_not_shown_or_read_elsewhere(ui: ASGIApp) -> None:
    html = {"accept": "text/html,*/*;q=0.8", "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    for path in ("/runs", "/graphql"):
        opened = send(ui, "GET", path, headers={**html, "sec-fetch-dest": "document"})
        assert opened.status == 200
        policies = [value for name, value in opened.headers if name == "content-security-policy"]
        assert "frame-ancestors 'self'" in policies
        assert ("x-frame-options", "SAMEORIGIN") in opened.headers
        assert ("cross-origin-opener-policy", "same-origin") in opened.headers
        for shown_in in ("iframe", "frame", "object", "embed"):
            assert send(ui, "GET", path, headers={**html, "sec-fetch-dest": shown_in}).status == 403
    for mode in ("no-cors", "cors"):
        read = {"sec-fetch-site": "cross-site", "sec-fetch-mode": mode, "sec-fetch-dest": "script"}
        assert send(ui, "GET", "/server_info", headers=read).status == 403
    answer = send(ui, "GET", "/server_info", headers={"sec-fetch-site": "same-origin"})
    assert (answer.status, ("cross-origin-resource-policy", "same-origin") in answer.headers) == (200, True)
    assert not any(name.startswith("access-control-") for name, _ in answer.headers)


def test_the_ui_is_the_guarded_one(tmp_path: Path) -> None:
    assert "wikistream_assets.instance.ui_server" in ui_command(Settings(home=tmp_path))
