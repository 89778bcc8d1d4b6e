"""``wikistream alerts``: what is open, what waits to be sent, closing by hand, and whether the channels work."""

import getpass
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer

from wikistream_assets.cli.console import NOT_FOUND, fail, printable, show_table

if TYPE_CHECKING:
    from wikistream_assets.alerts import Alerts

OPEN_EXIT_CODE: Final = 3
"""Exit code of ``list`` while an alert is open; 1 is for errors, 2 for wrong usage."""

app = typer.Typer(no_args_is_help=True, help="See open alerts, send what waits, close one by hand, try the channels.")


@app.command("list")
def list_open() -> None:
    """Show the open alerts and what waits in the outbox. Exit code 3 if an alert is open."""
    alerts = _alerts()
    opened = alerts.open_alerts()
    if opened:
        show_table(
            ("severity", "kind", "subject", "since", "fired", "message"),
            [
                (o.notice.severity, o.notice.kind, o.notice.subject, _time(o.fired_at), o.count, o.notice.message)
                for o in opened
            ],
        )
    else:
        print("nothing is open")
    states = alerts.channel_states()
    for channel, number in sorted(alerts.waiting().items()):
        state = states.get(channel)
        reason = f"; {state.error}, tried again at {_time(state.retry_at)}" if state and state.failures else ""
        print(printable(f"{number} in the outbox of {channel}{reason}"))
    if opened:
        raise typer.Exit(OPEN_EXIT_CODE)


@app.command()
def deliver() -> None:
    """Send what waits, as the sensor alert_delivery does at each tick. Exit code 1 if a channel did not take it."""
    delivery = _alerts().deliver()
    if delivery.busy:
        fail("another process is delivering right now: nothing to do", 1)
    for channel, number in sorted(delivery.sent.items()):
        print(f"{channel}: sent {number}")
    for channel, number in sorted(delivery.waiting.items()):
        print(f"{channel}: {number} still wait")
    if not delivery.sent and not delivery.waiting:
        print("nothing waits")
    if delivery.problems:
        fail("; ".join(delivery.problems), 1)


@app.command()
def clear(
    kind: Annotated[str, typer.Argument(help="as 'alerts list' shows it, for example run_failed")],
    subject: Annotated[str, typer.Argument(help="as 'alerts list' shows it, for example the name of the job")],
) -> None:
    """Close an open alert by hand, and tell so. Exit code 4 if it is not open.

    For what will never be well by itself, as the failed run of a job that nobody starts again. Where the cause is still
    there, the alert is fired again.
    """
    from wikistream_assets.alerts import AlertKind

    if kind not in list(AlertKind):
        fail(f"there is no kind {kind}: choose from {', '.join(AlertKind)}", 2)
    alerts = _alerts()
    if not alerts.is_open(kind, subject):
        fail(f"{kind} {subject} is not open: 'wikistream alerts list' shows what is", NOT_FOUND)
    alerts.clear(kind, subject, f"closed by hand, by {getpass.getuser()}")
    print(printable(f"closed {kind} {subject}"))


@app.command("test")
def try_out(
    channel: Annotated[
        str | None, typer.Argument(help="log, slack, email or sns; default: all that the routes name")
    ] = None,
) -> None:
    """Send a test message now, past routes, outbox and rate limit. Exit code 1 if a channel did not take it."""
    from wikistream_assets.alerts import Alert, AlertKind, Severity
    from wikistream_assets.alerts.channels import send
    from wikistream_assets.alerts.notice import Event, Notice
    from wikistream_assets.exceptions import DeliveryError

    alerts = _alerts()
    channels = alerts.channels
    if channel is not None and channel not in channels:
        fail(f"WIKISTREAM_ALERT_ROUTES does not name {channel}: it names {', '.join(channels)}", 2)
    problems = []
    for name in [channel] if channel else channels:
        trial = Alert(AlertKind.TEST, name, "This is a test of WikiStream's alerts.", severity=Severity.WARNING)
        try:
            send(name, channels[name], Notice.of(Event.FIRED, trial, time.time(), 1, None))
            print(f"{name}: taken")
        except DeliveryError as error:
            problems.append(f"{name}: {error}")
    if problems:
        fail("; ".join(problems), 1)


def _alerts() -> "Alerts":
    from wikistream_assets.alerts import Alerts
    from wikistream_assets.settings import load_settings

    return Alerts(load_settings())


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
