"""How a process is told to end: SIGTERM, Ctrl-C, and the hang-up of a closed terminal or a dropped connection."""

import signal
from collections.abc import Callable
from typing import NoReturn


def on_stop(action: Callable[[], object]) -> None:
    """Call ``action`` instead of ending at once. A hang-up counts too, unless the process was started to outlive it (nohup)."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: action())
    _hang_up_as_termination()


def clean_up_when_stopped() -> None:
    """Let SIGTERM and a hang-up end the process by ``SystemExit``, so that what it has started is stopped on the way out.

    Exit code 143, as of a process that SIGTERM has killed. Ctrl-C raises ``KeyboardInterrupt`` anyway.
    """
    signal.signal(signal.SIGTERM, _exit)
    _hang_up_as_termination()


def _exit(number: int, _: object) -> NoReturn:
    # A closing terminal and make send more than one: the first is being obeyed.
    for later in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(later, signal.SIG_IGN)
    raise SystemExit(128 + number)


def _hang_up_as_termination() -> None:
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        # through SIGTERM's handler of that moment: Dagster has its own while a run is under way
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
