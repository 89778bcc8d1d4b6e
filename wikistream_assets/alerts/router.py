"""The one router: what is said once, what is said again, to whom, and what waits for a channel that is down.

``fire`` and ``clear`` write to the home's store and return; nothing that uses the network happens in them. ``deliver`` empties
the outbox, called by a sensor at each tick and by ``wikistream alerts deliver``.

An alert is identified by its kind and subject. While it is open, firing it again is counted, and said again when it has become
worse; ``deliver`` says it again once per repeat interval, whether it was fired again or not. Delivery is at least once: a process
killed between sending and noting it sends again.
"""

import logging
import random
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Final

from wikistream_assets.alerts.channels import LogChannel, routed_channels, send
from wikistream_assets.alerts.kinds import KINDS, Alert
from wikistream_assets.alerts.notice import Event, Notice
from wikistream_assets.alerts.store import ChannelState, OpenAlert, Store, Transaction, Waiting
from wikistream_assets.embedded.home import open_home, user_key, writer_lock
from wikistream_assets.exceptions import ChannelDownError, NoticeRefusedError, WikistreamError, WriterBusyError
from wikistream_assets.quality.rule import Severity
from wikistream_assets.settings import AlertKind, Settings
from wikistream_assets.text.addresses import without_addresses

LOG: Final = "log"

FIRST_WAIT_SECONDS: Final = 5.0
LONGEST_WAIT_SECONDS: Final = 900.0
"""A channel that is down is tried again after 5 s, 10 s, 20 s .. 15 min, each shortened by up to half at random; or when it
asked to be, but no later than that."""

DELIVERY_SECONDS: Final = 20.0
"""After so long a delivery takes up nothing more; the rest is the next one's."""

_MINUTE: Final = 60.0
_TOLD_SECONDS: Final = 90 * 86_400.0
"""How long it is remembered that a piece of news was told."""

_log: Final = logging.getLogger(__name__)


@dataclass
class Delivery:
    """What one call of ``deliver`` did.

    Attributes:
        sent: channel -> messages sent.
        problems: one line for each channel that is down and each notice that was refused.
        expired: notices given up because they had waited for too long.
        waiting: channel -> notices that still wait.
        busy: another process is delivering; nothing was done here.
    """

    sent: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    expired: int = 0
    waiting: dict[str, int] = field(default_factory=dict)
    busy: bool = False


class Alerts:
    """The alerts of one home. Any number of processes may have one at the same time."""

    def __init__(self, settings: Settings, now: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._now = now
        self.not_kept: list[str] = []
        """What could not be written to the store, a line each: whoever keeps a place in the news must not move it on then."""
        self.channels = routed_channels(settings)

    @cached_property
    def _store(self) -> Store:
        return Store(open_home(self._settings) / "alerts.db")

    # ---- firing ------------------------------------------------------------------------------------------------------

    def fire(self, alert: Alert) -> None:
        """Note that something needs a person. Never raises for a store that cannot be written: the caller's work goes on."""
        try:
            with self._store.transaction() as store:
                self._fire(store, self._harmless(alert))
            self._write_log()
        except (sqlite3.Error, OSError, WikistreamError) as error:
            self._not_kept(f"alert {alert.kind} {alert.subject} was not kept ({error}): {alert.message}")

    def clear(self, kind: AlertKind | str, subject: str, message: str = "") -> None:
        """Note that it is over; said once if the alert was open, nothing happens otherwise. Never raises, as ``fire``."""
        try:
            with self._store.transaction() as store:
                opened = store.open_alert(AlertKind(kind), self._without_addresses(subject))
                if opened is None:
                    return
                store.close(opened.notice.kind, opened.notice.subject)
                self._put(store, opened.notice.cleared(self._without_addresses(message), self._now()))
            self._write_log()
        except (sqlite3.Error, OSError, WikistreamError) as error:
            self._not_kept(f"alert {kind} {subject} was not cleared ({error})")

    def is_open(self, kind: AlertKind | str, subject: str) -> bool:
        """Whether the alert has been fired and not cleared."""
        with self._store.transaction() as store:
            return store.open_alert(AlertKind(kind), subject) is not None

    def open_alerts(self) -> list[OpenAlert]:
        """What is open now, the oldest first."""
        with self._store.transaction() as store:
            return store.open_alerts()

    def waiting(self) -> dict[str, int]:
        """How many notices wait in the outbox, by channel."""
        with self._store.transaction() as store:
            return store.outbox_channels()

    def channel_states(self) -> dict[str, ChannelState]:
        """How each channel of the routes has fared."""
        with self._store.transaction() as store:
            return {name: store.channel(name) for name in self.channels}

    def run_url(self, run_id: str | None) -> str | None:
        """The run in the UI."""
        return f"http://127.0.0.1:{self._settings.dagster_port}/runs/{run_id}" if run_id else None

    def _not_kept(self, line: str) -> None:
        self.not_kept.append(line)
        _log.error("%s", line)

    def _fire(self, store: Transaction, alert: Alert) -> None:
        now = self._now()
        kind = AlertKind(alert.kind)
        if KINDS[kind].once:
            if store.tell_once(kind, alert.subject, now):
                store.forget_told(now - _TOLD_SECONDS)
                self._put(store, self._notice(Event.FIRED, alert, 1))
            return
        before = store.open_alert(kind, alert.subject)
        if before and alert.run_id and (alert.run_id, alert.message) == (before.notice.run_id, before.notice.message):
            return  # the same news of the same run, by a sensor that was killed before it noted its place
        if before is None:
            opened = OpenAlert(self._notice(Event.FIRED, alert, 1), now, now, now, 1)
            self._put(store, opened.notice)
        else:
            notice = self._notice(Event.REPEATED, alert, before.count + 1)
            again = notice.severity == Severity.ERROR != before.notice.severity
            opened = OpenAlert(notice, before.fired_at, now, now if again else before.sent_at, before.count + 1)
            if again:
                self._put(store, notice)
        store.keep_open(opened)

    def _harmless(self, alert: Alert) -> Alert:
        return replace(
            alert,
            subject=self._without_addresses(alert.subject),
            message=self._without_addresses(alert.message),
            details={name: self._value(value) for name, value in alert.details.items()},
        )

    def _value(self, value: object) -> object:
        if isinstance(value, str):
            return self._without_addresses(value)
        if isinstance(value, (list, tuple)):
            return [self._value(item) for item in value]
        if isinstance(value, dict):
            return {str(name): self._value(item) for name, item in value.items()}
        return value

    def _without_addresses(self, text: str) -> str:
        return without_addresses(text, lambda: user_key(self._settings))

    def _notice(self, event: Event, alert: Alert, count: int) -> Notice:
        return Notice.of(event, alert, self._now(), count, self.run_url(alert.run_id))

    def _put(self, store: Transaction, notice: Notice) -> None:
        for channel in self.channels_for(notice.kind):
            store.put(channel, notice, self._now())

    def channels_for(self, kind: str) -> tuple[str, ...]:
        """The channels of a kind: its own and those of ``*``."""
        routes = self._settings.alert_routes
        return tuple(sorted({*routes.get("*", ()), *routes.get(kind, ())}))

    def _write_log(self) -> None:
        """Empty the log channel's outbox. One process at a time, so that the lines stand in order."""
        log = self.channels.get(LOG)
        if log is None:
            return
        with self._store.transaction() as store:
            for item in store.waiting(LOG):
                try:
                    send(LOG, log, item.notice)
                except ChannelDownError as error:
                    _log.error("alerts: %s", error)
                    return
                store.remove(item)

    def forget(self, before: str, *, dry_run: bool = False) -> int:
        """Forget whom alerts have named before the UTC day ``before`` (yyyy-MM-dd).

        What the log said then, or later of a user's day before it, is deleted; so is the memory that it was told. What has been
        open since goes on without its details.

        Returns:
            How many lines of the log.
        """
        with self._store.transaction() as store:  # as in _write_log
            if not dry_run:
                store.forget_told_of_days(AlertKind.HIGH_RISK_USER, before)
                for opened in store.open_alerts():
                    if datetime.fromtimestamp(opened.fired_at, UTC).date().isoformat() < before:
                        store.keep_open(replace(opened, notice=replace(opened.notice, details={})))
            return LogChannel(self._settings).forget(before, dry_run=dry_run)

    # ---- delivery ----------------------------------------------------------------------------------------------------

    def deliver(self) -> Delivery:
        """Send what waits and is due, as far as each channel takes it. Takes seconds, whatever is down."""
        delivery = Delivery()
        deadline = time.monotonic() + DELIVERY_SECONDS
        try:
            with writer_lock(self._settings, "alerts"):
                self._expire(delivery)
                self._repeat()
                self._write_log()
                for name in self.channels.keys() - {LOG}:
                    for notice, items in self._due(name):
                        if time.monotonic() > deadline:
                            break
                        try:
                            send(name, self.channels[name], notice)
                        except NoticeRefusedError as error:
                            self._refused(name, items, str(error), delivery)
                        except ChannelDownError as error:
                            self._is_down(name, error, delivery)
                            break
                        else:
                            self._sent(name, items, delivery)
        except WriterBusyError:
            delivery.busy = True
        delivery.waiting = self.waiting()
        return delivery

    def _repeat(self) -> None:
        """Say again what is still open and was last said a repeat interval ago."""
        now = self._now()
        with self._store.transaction() as store:
            for opened in store.open_alerts():
                if now - opened.sent_at >= self._settings.alert_repeat_minutes * _MINUTE:
                    notice = opened.notice.repeated(now)
                    self._put(store, notice)
                    store.keep_open(replace(opened, notice=notice, sent_at=now))

    def _due(self, channel: str) -> list[tuple[Notice, list[Waiting]]]:
        """What may be sent now: each notice with what it stands for in the outbox; the last one sums up what is too much."""
        now = self._now()
        with self._store.transaction() as store:
            if store.channel(channel).retry_at > now:
                return []
            items = store.waiting(channel, due=now)
            allowed = self._settings.alert_rate_per_minute - store.sent_since(channel, now - _MINUTE, now)
        if not items or allowed <= 0:
            return []
        if len(items) <= allowed:
            return [(item.notice, [item]) for item in items]
        single, rest = items[: allowed - 1], items[allowed - 1 :]
        return [
            *((item.notice, [item]) for item in single),
            (Notice.digest([item.notice for item in rest], now), rest),
        ]

    def _sent(self, channel: str, items: list[Waiting], delivery: Delivery) -> None:
        with self._store.transaction() as store:
            store.remove(*items)
            store.note_sent(channel, self._now())
            if store.channel(channel).failures:
                store.set_channel(channel, ChannelState())
                _log.info("alerts: channel %s works again", channel)
        delivery.sent[channel] = delivery.sent.get(channel, 0) + 1

    def _refused(self, channel: str, items: list[Waiting], reason: str, delivery: Delivery) -> None:
        delivery.problems.append(reason)
        _log.warning("alerts: %s; tried again later", reason)
        with self._store.transaction() as store:
            for item in items:
                store.postpone(item, self._now() + _wait(item.attempts))

    def _is_down(self, channel: str, error: ChannelDownError, delivery: Delivery) -> None:
        delivery.problems.append(str(error))
        with self._store.transaction() as store:
            failures = store.channel(channel).failures
            wait = max(_wait(failures), min(error.retry_after, LONGEST_WAIT_SECONDS))
            store.set_channel(channel, ChannelState(failures + 1, self._now() + wait, str(error)))
        _log.warning("alerts: %s; tried again in %.0f s", error, wait)

    def _expire(self, delivery: Delivery) -> None:
        oldest = self._now() - self._settings.alert_expiry_hours * 3600
        with self._store.transaction() as store:
            for channel in store.outbox_channels():
                for item in store.waiting(channel):
                    if item.made_at < oldest:
                        store.remove(item)
                        delivery.expired += 1
                        _log.error(
                            "alerts: given up on %s after %d h: %s",
                            channel,
                            self._settings.alert_expiry_hours,
                            item.notice.title,
                        )


def _wait(failures: int) -> float:
    longest = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2.0 ** min(failures, 20))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311  # so that many homes do not come back at the same moment
