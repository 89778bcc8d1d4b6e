"""What tests ask of the Dagster UI's server."""

from typing import Any

import requests


def answers(address: str) -> bool:
    """Whether a UI is there."""
    try:
        return requests.get(f"{address}/server_info", timeout=2).ok
    except requests.RequestException:
        return False


def graphql(address: str, query: str) -> Any:
    """What the UI's pages are made from."""
    return requests.post(f"{address}/graphql", json={"query": query}, timeout=60).json()["data"]
