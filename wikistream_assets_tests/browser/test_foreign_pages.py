"""What a page of another origin can do to the UI of ``make dev``, in headless Chromium; Dagster's own server is the control.

Whoever visits a page runs its scripts, and the browser carries their requests to loopback. The control obeys each of them.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import dagster as dg
import pytest
from playwright.sync_api import Page

from wikistream_assets.embedded.home import open_home
from wikistream_assets.embedded.programs import programs, ui_command, ui_environment
from wikistream_assets.embedded.source import choose_source
from wikistream_assets.instance.home import dagster_instance
from wikistream_assets.machine.ports import free_port
from wikistream_assets.settings import Settings
from wikistream_assets_tests.conftest import wait_until
from wikistream_assets_tests.webserver import answers

pytestmark = [pytest.mark.browser, pytest.mark.e2e]

JOB = "purge_history"
LAUNCH = f"""mutation{{launchRun(executionParams:{{
  selector:{{repositoryName:"__repository__",repositoryLocationName:"wikistream",jobName:"{JOB}"}},runConfigData:{{}}
}}){{__typename}}}}"""

# Each ends once the server has answered, whatever it said.
BY_SCRIPT = {
    "image": "a => new Promise(end => {const i = new Image(); i.onload = i.onerror = end; i.src = a.in_the_address})",
    "post without a body": "a => fetch(a.in_the_address, {method: 'POST', mode: 'no-cors'}).catch(String)",
    "text that says it is JSON": """a => fetch(a.graphql, {
        method: 'POST', mode: 'no-cors', headers: {'Content-Type': 'text/plain; application/json'}, body: a.body
    }).catch(String)""",
    "form in a frame": """a => new Promise(end => {
        const frame = document.createElement('iframe'), form = document.createElement('form')
        frame.name = form.target = 'f' + Math.random(), form.method = 'POST', form.enctype = 'text/plain'
        form.action = a.in_the_address
        document.body.append(frame, form)
        frame.onload = end
        form.submit()
    })""",
}
OPEN_SOCKET = """a => new Promise(end => {
    const socket = new WebSocket(a.graphql.replace('http', 'ws'), 'graphql-ws')
    socket.onopen = () => end('open'), socket.onerror = () => end('refused')
})"""
SHOW_IN_FRAME = """a => new Promise(end => {
    const frame = document.createElement('iframe')
    frame.onload = end, frame.src = a.ui
    document.body.append(frame)
})"""
FETCH_AS_OWN = """a => fetch('/graphql', {
    method: 'POST', headers: {'Content-Type': 'application/json'}, body: a.body
}).then(answer => answer.status)"""


class _Anything(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>a page that somebody visits</title><body></body>")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@dataclass
class Served:
    """One home with its code server, the UI of 'make dev' and Dagster's own server, and a foreign page."""

    instance: dg.DagsterInstance
    guarded: int
    bare: int
    foreign: int

    def runs(self) -> int:
        return self.instance.get_runs_count(dg.RunsFilter(job_name=JOB))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    settings = Settings(
        home=tmp_path_factory.mktemp("foreign") / "home",
        code_port=free_port(),
        dagster_port=free_port(),
        cycle_first_seconds=86_400,
    )
    open_home(settings)
    rows = {program.name: program for program in programs(settings, choose_source(settings, "synthetic"))}
    rows["code"].prepare()
    for path, text in rows["daemon"].files.items():
        path.write_text(text)
    bare, ui = free_port(), ui_command(settings)
    workspace = ui[ui.index("--workspace") + 1]
    control = [sys.executable, "-m", "dagster_webserver", "-h", "127.0.0.1", "-p", str(bare), "-w", workspace]
    environment = {**os.environ, **rows["code"].environment, **ui_environment(settings)}
    pages = ThreadingHTTPServer(("127.0.0.1", 0), _Anything)
    threading.Thread(target=pages.serve_forever, daemon=True).start()
    log = (settings.root / "servers.log").open("w")
    started = []
    try:
        started.append(subprocess.Popen(rows["code"].command(), env=environment, stdout=log, stderr=log))
        if rows["code"].wait_ready is not None:
            rows["code"].wait_ready(120, lambda: None)
        for command in (ui, control):
            started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        for port in (settings.dagster_port, bare):
            wait_until(lambda port=port: answers(f"http://127.0.0.1:{port}"))  # type: ignore[misc]
        with dagster_instance(settings) as instance:
            yield Served(instance, settings.dagster_port, bare, pages.server_port)
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(60)
        pages.shutdown()
        pages.server_close()
        log.close()


def orders(host: str, port: int) -> dict[str, str]:
    ui = f"http://{host}:{port}"
    return {
        "ui": ui,
        "graphql": f"{ui}/graphql",
        "in_the_address": f"{ui}/graphql?query={LAUNCH.replace(chr(10), '')}",
        "body": json.dumps({"query": LAUNCH}),
    }


@pytest.mark.parametrize(
    ("foreign", "own"),
    [("evil.example", "127.0.0.1"), ("localhost", "localhost")],
    ids=["another site", "another port of the same host"],
)
def test_no_order_of_a_foreign_page_is_obeyed(served: Served, page: Page, foreign: str, own: str) -> None:
    for port, obeys in ((served.bare, True), (served.guarded, False)):
        target = orders(own, port)
        page.goto(f"http://{foreign}:{served.foreign}/")
        for name, script in BY_SCRIPT.items():
            before = served.runs()
            page.evaluate(script, target)
            assert served.runs() - before == obeys, f"{name}, obeyed: {not obeys}"
        assert page.evaluate(OPEN_SOCKET, target) == ("open" if obeys else "refused")
        page.evaluate(SHOW_IN_FRAME, target)
        shown = page.frames[-1].locator("#root").count() if page.frames[-1].url.startswith(target["ui"]) else 0
        assert shown == obeys, "a frame over which a page can lay its own buttons"
        before = served.runs()
        with page.expect_navigation():
            page.evaluate(
                """a => {
                    const form = document.createElement('form')
                    form.method = 'POST', form.action = a.in_the_address
                    document.body.append(form)
                    form.submit()
                }""",
                target,
            )
        assert served.runs() - before == obeys, "a form in place of the page"


def test_no_order_of_a_page_under_a_name_that_was_turned_on_loopback_is_obeyed(served: Served, page: Page) -> None:
    for port, obeys in ((served.bare, True), (served.guarded, False)):
        opened = page.goto(f"http://rebound.example:{port}/runs")
        assert opened is not None
        assert opened.ok is obeys
        before = served.runs()
        assert page.evaluate(FETCH_AS_OWN, orders("rebound.example", port)) == (200 if obeys else 403)
        assert served.runs() - before == obeys
    assert "127.0.0.1" in page.goto(f"http://rebound.example:{served.guarded}/").text()  # type: ignore[union-attr]


def test_a_person_launches_a_run_and_reads_its_log_as_it_grows(served: Served, page: Page, screenshots: Path) -> None:
    sockets: list[str] = []
    page.on("websocket", lambda socket: sockets.append(socket.url))
    refused: list[str] = []
    page.on("response", lambda answer: refused.append(answer.url) if answer.status in (403, 405) else None)
    ui = f"http://localhost:{served.guarded}"
    page.goto(f"http://evil.example:{served.foreign}/")
    page.evaluate("a => document.body.innerHTML = `<a href='${a}/jobs'>the UI</a>`", ui)
    page.get_by_text("the UI").click()  # a link from elsewhere opens it
    page.get_by_text(JOB).first.wait_for(timeout=60_000)
    before = served.runs()
    page.goto(f"{ui}/locations/wikistream/jobs/{JOB}/playground")
    page.get_by_role("button", name="Launch run").click(timeout=60_000)
    wait_until(lambda: served.runs() == before + 1)
    (run,) = served.instance.get_runs(dg.RunsFilter(job_name=JOB), limit=1)
    page.goto(f"{ui}/runs/{run.run_id}")
    page.get_by_text(run.run_id[:8]).first.wait_for(timeout=60_000)
    wait_until(lambda: sockets)
    page.wait_for_timeout(1_000)
    served.instance.report_run_canceled(run, "a line that came while the page was open")
    page.get_by_text("a line that came while the page was open").first.wait_for(timeout=30_000)
    page.screenshot(path=screenshots / "launched.png")
    assert sockets[0] == f"ws://localhost:{served.guarded}/graphql"
    page.goto(f"{ui}/graphql")
    page.get_by_text("GraphiQL").first.wait_for(timeout=60_000)
    assert refused == []
