"""A closed terminal ends what it was waiting for, and leaves nothing half started."""

import signal

import pytest

from wikistream_assets.embedded import services
from wikistream_assets.embedded.supervisor import marked_processes
from wikistream_assets.settings import Settings
from wikistream_assets_tests.cli.runner import start

pytestmark = pytest.mark.e2e


@pytest.mark.usefixtures("hang_ups_count")
@pytest.mark.parametrize(
    ("arguments", "amid"), [(("demo", "--events", "2000"), "ingest"), (("up",), "starting producer")]
)
def test_a_hang_up_amid_a_start_leaves_no_process(settings: Settings, arguments: tuple[str, ...], amid: str) -> None:
    try:
        with start(*arguments, settings=settings) as process:
            assert process.stderr is not None
            told = next((line for line in process.stderr if line.startswith(amid)), "")
            assert told, "it ended before"
            process.send_signal(signal.SIGHUP)
            assert process.wait(timeout=120) == 128 + signal.SIGTERM
        assert marked_processes(settings.root) == []
    finally:
        services.down(settings)
