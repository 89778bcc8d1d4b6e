"""The continuous Bronze stream under the home's supervisord: its state, and its restart."""

import time
from datetime import UTC, datetime
from typing import Any, Final
from xmlrpc.client import Fault

from wikistream_assets.embedded import supervisor
from wikistream_assets.exceptions import SetupError
from wikistream_assets.machine.locks import exclusive
from wikistream_assets.settings import Settings
from wikistream_assets.supervision.stream_control import StreamState

STREAM: Final = "stream"
"""The program's name under supervisord."""

_LOCK: Final = "stream-restart.lock"
_NOTICE_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.1


class SupervisedStream:
    """The local stream, under the home's supervisord."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def state(self) -> StreamState:
        try:
            infos = supervisor.process_infos(self._settings)
        except SetupError as error:
            return _no_process(str(error))
        if infos is None:
            return _no_process("no supervisord runs for this home: 'make up' starts the stream")
        if STREAM not in infos:
            return _no_process("the stream has not been started: 'make up' starts it")
        return _state(infos[STREAM])

    def restart(self, instance: str | None) -> bool:
        # Two daemons may see the same stalled instance: who comes second finds another one.
        with exclusive(self._settings.root / "run" / _LOCK):
            state = self.state()
            if state.instance != instance:
                return False
            if instance is None:
                return self._start()
            supervisor.revive(self._settings, int(instance.partition(":")[0]))
            # who asks next must not find the old instance any more
            deadline = time.monotonic() + _NOTICE_SECONDS
            while self.state().instance == instance and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
            return True

    def _start(self) -> bool:
        try:
            supervisor.call(self._settings, "startProcess", STREAM, False)
        except (OSError, Fault):  # no supervisord, no such program, or about to be started already
            return False
        return True


def _no_process(detail: str) -> StreamState:
    return StreamState(running=False, instance=None, since=None, died=None, detail=detail)


def _state(info: dict[str, Any]) -> StreamState:
    started, ended = (datetime.fromtimestamp(info[name], UTC) if info[name] else None for name in ("start", "stop"))
    return StreamState(
        running=bool(info["pid"]),
        instance=f"{info['pid']}:{info['start']}" if info["pid"] else None,
        since=started if info["pid"] else ended,
        died=ended if info["pid"] else None,  # a program that 'up' starts anew is a new one for supervisord
        detail=f"{info['statename']}: {info['description']}",
    )
