"""The pipeline as ``make up`` starts it, in a home of its own that is gone afterwards; for the benches that watch it run."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from wikistream_assets.embedded import services
from wikistream_assets.embedded.home import open_home
from wikistream_assets.machine.ports import free_port
from wikistream_assets.settings import Settings

_PORTS: Final = ("kafka_port", "kafka_controller_port", "source_port", "code_port")


@contextmanager
def pipeline(rate: float, **fields: Any) -> Iterator[Settings]:
    """Run the pipeline on the synthetic source.

    Args:
        rate: events a second.
        fields: further settings.
    """
    with tempfile.TemporaryDirectory(prefix="wikistream-bench-") as folder:
        ports: dict[str, Any] = {name: free_port() for name in _PORTS}
        settings = Settings(home=Path(folder) / "home", synthetic_events_per_second=rate, **ports, **fields)
        open_home(settings)
        try:
            services.up(settings, "synthetic")
            yield settings
        finally:
            services.down(settings)
