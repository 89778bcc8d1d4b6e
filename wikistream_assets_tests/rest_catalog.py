"""An Iceberg REST catalog on loopback, in front of the tables of a home: a catalog that moves one table's pointer at a time.

``python -m wikistream_assets_tests.rest_catalog URI STEP ..`` carries out steps as ``engine.step`` does, but for the lake, which
it opens through this catalog. Spark keeps the home's own, which names the same tables.
"""

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import CommitTableRequest

from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.engine.step import Step, execute
from wikistream_assets.environment.local import LocalEnvironment
from wikistream_assets.lake.lakehouse import CATALOG_NAME, Lakehouse
from wikistream_assets.lake.local_files import IO_PROPERTY
from wikistream_assets.settings import Settings, load_settings


class _Handler(BaseHTTPRequestHandler):
    lake: Lakehouse

    def do_GET(self) -> None:
        match self.path.partition("?")[0].split("/")[2:]:
            case ["config"]:
                self._answer(200, {"defaults": {}, "overrides": {}})
            case ["namespaces"]:
                self._answer(200, {"namespaces": self.lake.catalog.list_namespaces()})
            case ["namespaces", namespace]:
                properties = self.lake.catalog.load_namespace_properties(namespace)
                self._answer(200, {"namespace": [namespace], "properties": properties})
            case ["namespaces", namespace, "tables", name]:
                table = self.lake.catalog.load_table((namespace, name))
                self._table(table.metadata_location, table.metadata)
            case _:
                self._answer(404, {"error": {"message": self.path, "type": "NotFound", "code": 404}})

    def do_POST(self) -> None:
        *_, namespace, _, name = self.path.split("/")
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request = CommitTableRequest.model_validate(asked | {"identifier": {"namespace": [namespace], "name": name}})
        table = self.lake.catalog.load_table((namespace, name))
        try:
            done = self.lake.catalog.commit_table(table, request.requirements, request.updates)
        except CommitFailedException as error:
            self._answer(409, {"error": {"message": str(error), "type": "CommitFailedException", "code": 409}})
        else:
            self._table(done.metadata_location, done.metadata)

    def _table(self, location: str, metadata: Any) -> None:
        self._answer(200, {"metadata-location": location, "metadata": json.loads(metadata.model_dump_json())})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Say nothing: a test reads what the catalog holds."""


@contextmanager
def rest_catalog(settings: Settings) -> Iterator[str]:
    """Serve the catalog of a home that is there; gives its address."""
    handler = type("Handler", (_Handler,), {"lake": local_lake(settings)})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@dataclass(frozen=True)
class RestEnvironment(LocalEnvironment):
    """A home whose lake is opened through a REST catalog."""

    uri: str

    def lake(self) -> Lakehouse:
        return Lakehouse(RestCatalog(CATALOG_NAME, uri=self.uri, **IO_PROPERTY))


def main(uri: str, *steps: str) -> None:
    environment = RestEnvironment(load_settings(), uri)
    for step in steps:
        execute(Step.from_json(step), environment)


if __name__ == "__main__":
    main(*sys.argv[1:])
