"""The project's own synthetic source: deterministic lines of a recentchange stream, and the exact truth about them.

The same parameters always give the same bytes. Lines are made in blocks with a random generator of their own, so any line
can be reached without making all before it: that is how a server resumes in the middle.

The mix follows the public captures of 2021 and the stream of 2025/26: 62 % edit, 24 % categorize, 8 % log (a part without id:
abuse filter hits), 5.5 % new (without ``length.old``), now and then the numeric type ``142``; a third by bots, a seventh of the
human changes by temporary accounts; ``meta.dt`` in milliseconds, 0.6 to 6.1 s after ``timestamp``. Planted in it are a few
accounts whose behaviour the risk scores are to find; they act within one hour each and need some 10,000 events to stand out.

A ``continuous`` source is the same world without an end to speak of, in the time of the clock: a line is sent at its ``meta.dt``,
the planted accounts take turns, one each hour, and everybody else spreads evenly, so that at no usual rate somebody else stands
out. What is not asked for costs nothing, so a server can go on in the middle of the year.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from itertools import accumulate
from random import Random
from typing import Any, Final, Self

import orjson

from producer.contract import Reason
from producer.eventstreams import vocabulary
from producer.eventstreams.vocabulary import Page, Wiki
from producer.wikis import CANARY_DOMAIN, FOLLOWED_DOMAINS

DEFAULT_START: Final = datetime(2026, 3, 2, 10, tzinfo=UTC)
"""First event's time: in the past of every clock, so that a default run never depends on when it is run."""

BLOCK: Final = 1024
"""Lines per independent block."""

STREAM: Final = "mediawiki.recentchange"
TOPIC: Final = f"codfw.{STREAM}"

LASTING_HOURS: Final = 366 * 24.0
"""How long a continuous source goes on."""

FIRST_OFFSET: Final = 5_900_000_000
"""Kafka offset of event 0 at the source, in its ``meta`` and in its id."""

_FIRST_RC_ID: Final = 2_000_000_000
_FIRST_REVISION: Final = 1_300_000_000
_WITHOUT_USER: Final = 0.0005
"""Share of changes whose author has been suppressed: valid for the stream, but not for Silver."""

MALFORMED_CYCLE: Final = (
    Reason.NOT_JSON, Reason.MISSING_ID, Reason.MISSING_DOMAIN, Reason.MISSING_TYPE, Reason.MISSING_TIME, Reason.WRONG_TYPE,
    Reason.INVALID_TIME, Reason.FUTURE_TIME, Reason.NOT_OBJECT, Reason.NOT_JSON, Reason.MISSING_ID, Reason.OVERSIZED,
    Reason.MISSING_DOMAIN, Reason.MISSING_TYPE, Reason.MISSING_TIME, Reason.WRONG_TYPE, Reason.NOT_JSON, Reason.NOT_OBJECT,
)  # fmt: skip
"""Malformed lines take their class from this cycle in turn, so that a few of them cover every class."""


@dataclass(frozen=True)
class Actor:
    """An account planted for the risk scores.

    Attributes:
        user: its name.
        at: when it acts, as a share of the recording.
        edits: how many changes it makes within one hour.
        large_deletions: how many of them delete more than 5,000 bytes.
        domains: in how many wikis, all of them followed.
    """

    user: str
    at: float
    edits: int
    large_deletions: int
    domains: int


ACTORS: Final = (
    Actor("Sweeping Broom", at=0.12, edits=90, large_deletions=6, domains=1),
    Actor("~2026-31337-42", at=0.31, edits=72, large_deletions=5, domains=2),
    Actor("Seven Seas Sailor", at=0.47, edits=80, large_deletions=0, domains=8),
    Actor("Quiet Eraser", at=0.63, edits=12, large_deletions=6, domains=1),
    Actor("~2026-70707-07", at=0.82, edits=64, large_deletions=0, domains=1),
)


@dataclass
class Manifest:
    """What the lines of one source contain, counted as they were made.

    ``lines = unique + redelivered + sum(malformed) + canary + filtered``.
    """

    lines: int = 0
    unique: int = 0
    redelivered: int = 0
    canary: int = 0
    filtered: int = 0
    malformed: Counter[str] = field(default_factory=Counter)
    filtered_domains: Counter[str] = field(default_factory=Counter)
    bytes: int = 0

    @property
    def dead_lettered(self) -> int:
        return self.malformed.total()


@dataclass(frozen=True, slots=True)
class Line:
    """One line and the truth about it.

    Attributes:
        data: the line as it goes over the wire, without line end.
        time_ms: when it is sent, ms since 1970 (``meta.dt`` of a valid event).
        event_id: ``meta.id``; None for a malformed line or a canary.
        domain: ``meta.domain`` as made; of a malformed line's origin too.
        defect: the class of a malformed line.
    """

    data: bytes
    time_ms: int
    event_id: str | None
    domain: str
    defect: Reason | None = None


@dataclass(frozen=True)
class Generator:
    """A synthetic recording.

    Args:
        seed: another seed, another world.
        events: lines in all, redeliveries, canaries and malformed ones included.
        start: time of the first event.
        hours: time between the first and the last event.
        followed_share: share of lines in the 18 followed wikis; the real stream has about 0.45.
        redelivered / malformed / canary: shares of such lines; ``int(events * malformed)`` lines are malformed, evenly spread.
        oversized_bytes: size of a line of class ``oversized``.
        continuous: see the module's text; ``meta.dt`` then never goes back from a line to the next, redeliveries apart.
    """

    seed: int = 7
    events: int = 20_000
    start: datetime = DEFAULT_START
    hours: float = 26.0
    followed_share: float = 0.45
    redelivered: float = 0.004
    malformed: float = 0.001
    canary: float = 0.0005
    oversized_bytes: int = 1_000_100
    continuous: bool = False

    @classmethod
    def lasting(cls, start: datetime, events_per_second: float, seed: int) -> Self:
        """A continuous source from ``start`` on."""
        events = round(events_per_second * LASTING_HOURS * 3600)
        return cls(seed=seed, events=events, start=start, hours=LASTING_HOURS, continuous=True)

    @property
    def identity(self) -> str:
        """Names exactly these lines: the seed and every parameter."""
        return (
            f"synthetic:seed={self.seed},events={self.events},start={self.start.isoformat()},hours={self.hours:g},"
            f"followed={self.followed_share:g},redelivered={self.redelivered:g},malformed={self.malformed:g},"
            f"canary={self.canary:g},oversized={self.oversized_bytes}{',continuous' if self.continuous else ''}"
        )

    def lines(self, first: int = 0) -> Iterator[Line]:
        """The lines from number ``first`` on."""
        for block in range(first // BLOCK, -(-self.events // BLOCK)):
            made = _Block(self, block).lines()
            yield from made[max(0, first - block * BLOCK) :]

    def manifest(self, domains: frozenset[str] | None = FOLLOWED_DOMAINS, ledger: set[str] | None = None) -> Manifest:
        """Count the truth over all lines, as a producer with this domain filter has to find it.

        Args:
            domains: the followed domains; None follows all.
            ledger: if given, receives the id of every unique accepted event.
        """
        ids: set[str] = set() if ledger is None else ledger
        truth = Manifest()
        for line in self.lines():
            truth.lines += 1
            truth.bytes += len(line.data)
            if line.defect is not None:
                truth.malformed[line.defect.value] += 1
            elif line.event_id is None:
                truth.canary += 1
            elif domains is not None and line.domain not in domains:
                truth.filtered += 1
                truth.filtered_domains[line.domain] += 1
            elif line.event_id in ids:
                truth.redelivered += 1
            else:
                truth.unique += 1
                ids.add(line.event_id)
        return truth

    @cached_property
    def _vocabulary(self) -> vocabulary.Vocabulary:
        return vocabulary.build(self.seed, self.events, self.followed_share, self.start.year)

    @cached_property
    def _shares(self) -> list[float]:
        return list(accumulate(self._vocabulary.weights))

    def _planted(self, line: int) -> tuple[Actor, int] | None:
        """The planted account that makes this line, and the number of this change among its changes."""
        return self._planted_this_hour(line) if self.continuous else self._schedule.get(line)

    def _planted_this_hour(self, line: int) -> tuple[Actor, int] | None:
        """As in ``_schedule``, for the one account that acts in the hour of the clock in which this line is sent."""
        per_hour = self.events / self.hours
        begun = self.start.timestamp() / 3600
        hour = int(begun + line / per_hour)
        actor = ACTORS[hour % len(ACTORS)]
        begin = (hour - begun + 0.1) * per_hour
        spacing = max(2.0, 0.8 * per_hour / actor.edits)
        number = max(0, round((line - begin) / spacing))
        due = int(begin + number * spacing) == line and number < actor.edits and line < begin + 0.85 * per_hour
        return (actor, number) if due else None

    @cached_property
    def _schedule(self) -> dict[int, tuple[Actor, int]]:
        """Line number -> the planted account that makes it, and the number of this change among its changes."""
        schedule: dict[int, tuple[Actor, int]] = {}
        per_hour = self.events / self.hours
        for actor in ACTORS:
            begin = (int(actor.at * self.hours) + 0.1) * per_hour
            spacing = max(2.0, 0.8 * per_hour / actor.edits)
            for number in range(actor.edits):
                line = int(begin + number * spacing)
                if line < min(self.events, begin + 0.85 * per_hour):
                    schedule[line] = (actor, number)
        return schedule


class _Block:
    """Makes the lines of one block."""

    def __init__(self, source: Generator, number: int) -> None:
        self._source = source
        self._first = number * BLOCK
        self._last = min(source.events, self._first + BLOCK)
        self._random = Random(f"lines:{source.seed}:{number}")  # noqa: S311  # it must be repeatable
        self._words = source._vocabulary
        self._step_ms = source.hours * 3_600_000 / source.events
        self._start_ms = round(source.start.timestamp() * 1000)

    def lines(self) -> list[Line]:
        source, random = self._source, self._random.random
        made: list[Line] = []
        recent: list[Line] = []  # what a redelivery repeats: valid lines of this block
        for index in range(self._first, self._last):
            if _is_due(index, source.malformed):
                line = self._malformed(index)
            elif source._planted(index):
                line = self._event(index)
            elif _is_due(index, source.canary, phase=0.2887):
                line = self._canary(index)
            elif random() < source.redelivered and recent:
                repeated = recent[int(len(recent) * random())]
                line = Line(repeated.data, self._time(index)[1], repeated.event_id, repeated.domain)
            else:
                line = self._event(index)
            if line.event_id is not None:
                recent.append(line)
            made.append(line)
        return made

    def _time(self, index: int) -> tuple[int, int]:
        """(``timestamp`` in s, ``meta.dt`` in ms): the event reaches the stream 0.6 to 6.1 s after it happened."""
        moment_ms = self._start_ms + int(index * self._step_ms)
        lag_ms = 600 + int(5500 * self._random.random() ** 3)
        if self._source.continuous:
            return (moment_ms - lag_ms) // 1000, moment_ms
        return moment_ms // 1000, moment_ms // 1000 * 1000 + lag_ms

    def _event(self, index: int) -> Line:
        document, time_ms = self._document(index)
        meta = document["meta"]
        return Line(orjson.dumps(document), time_ms, meta["id"], meta["domain"])

    def _document(self, index: int) -> tuple[dict[str, Any], int]:
        random, words = self._random.random, self._words
        planted = self._source._planted(index)
        if planted:
            actor, number = planted
            wiki = words.wikis[number % actor.domains]
            kind, user, bot = "edit", actor.user, False
        else:
            wiki = words.wikis[bisect_left(self._source._shares, random(), hi=len(words.wikis) - 1)]
            kind = _TYPES[bisect_left(_TYPE_SHARES, random())]
            user, bot = self._author(wiki)
        pages = wiki.categories if kind == "categorize" else wiki.pages
        page = pages[int(len(pages) * random() ** 1.4)]
        seconds, time_ms = self._time(index)
        comment, html = wiki.comments[int(len(wiki.comments) * random())]
        if kind == "categorize":
            member = wiki.pages[int(len(wiki.pages) * random())]
            comment = f"[[:{member.title}]] added to category"
            html = f'<a href="{member.url}" title="{member.title}">{member.title}</a> added to category'
        document: dict[str, Any] = {
            "$schema": "/mediawiki/recentchange/1.0.0",
            "meta": {
                "uri": page.url,
                "request_id": self._uuid(),
                "id": self._uuid(),
                "domain": wiki.domain,
                "stream": STREAM,
                "dt": _iso_ms(time_ms),
                "topic": TOPIC,
                "partition": 0,
                "offset": FIRST_OFFSET + index,
            },
            "id": _FIRST_RC_ID + index,
            "type": kind,
            "namespace": 2600 if kind == "142" else page.namespace,
            "title": page.title,
            "title_url": page.url,
            "comment": comment,
            "timestamp": seconds,
            "user": user,
            "bot": bot,
            "notify_url": f"https://{wiki.domain}/w/index.php?diff={_FIRST_REVISION + index}&oldid={_old_revision(index)}"
            f"&rcid={_FIRST_RC_ID + index}",
        }
        self._add_change(document, kind, index, page, planted)
        document["server_url"] = f"https://{wiki.domain}"
        document["server_name"] = wiki.domain
        document["server_script_path"] = "/w"
        document["wiki"] = wiki.database
        document["parsedcomment"] = html
        return document, time_ms

    def _add_change(
        self, document: dict[str, Any], kind: str, index: int, page: Page, planted: tuple[Actor, int] | None
    ) -> None:
        """Add what only changes of this type carry; take away what some of them lack."""
        random = self._random.random
        if kind == "edit":
            old, new = self._lengths(planted)
            document["minor"] = random() < 0.3
            if random() < 0.74:
                document["patrolled"] = random() < 0.6
            document["length"] = {"old": old, "new": new}
            document["revision"] = {"old": _old_revision(index), "new": _FIRST_REVISION + index}
        elif kind == "new":
            document["minor"] = False
            document["patrolled"] = random() < 0.3
            document["length"] = {"new": 40 + int(9_000 * random() ** 3)}
            document["revision"] = {"new": _FIRST_REVISION + index}
        elif kind == "log":
            log_type, log_action, params = _LOGS[int(len(_LOGS) * random())]
            document |= {"log_id": 0 if log_type == "abusefilter" else 90_000_000 + index, "log_type": log_type}
            document |= {
                "log_action": log_action,
                "log_params": params,
                "log_action_comment": f"{log_action} [[{page.title}]]",
            }
            if log_type == "abusefilter":
                del document["id"]
            elif random() < 0.02:
                document["id"] = None
        if not planted and random() < _WITHOUT_USER:
            del document["user"]

    def _author(self, wiki: Wiki) -> tuple[str, bool]:
        """(user name, bot flag). Names nearer the front of a list are drawn more often: few are busy, many are rare."""
        random, words = self._random.random, self._words
        draw, rank = random(), random() ** (1.0 if self._source.continuous else 1.8)
        if draw < 0.33:
            return words.bots[int(len(words.bots) * rank)], True
        if draw < 0.43:
            return words.temporary[int(len(words.temporary) * rank)], False
        if draw < 0.45:
            return words.addresses[int(len(words.addresses) * rank)], False
        if draw < 0.52:
            return words.travellers[int(len(words.travellers) * rank)], False
        return wiki.users[int(len(wiki.users) * rank)], False

    def _lengths(self, planted: tuple[Actor, int] | None) -> tuple[int, int]:
        """Page size (before, after), bytes. Median change about 15 bytes, 5 % above 900, 1 % above 3,000."""
        random = self._random.random
        base = 200 + int(60_000 * random() ** 3)
        if planted:
            actor, number = planted
            # spread evenly over its changes: a difference between two neighbours means that one is due
            due = (number + 1) * actor.large_deletions // actor.edits - number * actor.large_deletions // actor.edits
            removed = 5_100 + int(9_000 * random()) if due else int(90 * random())
            return base + removed, base
        draw = random()
        if draw < 0.0024:
            return base + 5_001 + int(20_000 * random()), base
        if draw < 0.0027:
            return base, base + 50_001 + int(90_000 * random())
        size = min(4_900, int(15 * (1 / (1 - random()) - 1) ** 1.15))
        return (base + size, base) if random() < 0.26 else (base, base + size)

    def _uuid(self) -> str:
        digits = f"{self._random.getrandbits(128):032x}"
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"

    def _canary(self, index: int) -> Line:
        _, time_ms = self._time(index)
        meta = {
            "domain": CANARY_DOMAIN,
            "dt": _iso_ms(time_ms),
            "id": self._uuid(),
            "request_id": self._uuid(),
            "stream": STREAM,
        }
        document = {"$schema": "/mediawiki/recentchange/1.0.1", "meta": meta}
        return Line(orjson.dumps(document), time_ms, None, CANARY_DOMAIN)

    def _malformed(self, index: int) -> Line:
        reason = MALFORMED_CYCLE[int(index * self._source.malformed) % len(MALFORMED_CYCLE)]
        document, time_ms = self._document(index)
        domain = document["meta"]["domain"]
        return Line(_spoil(document, reason, self._source.oversized_bytes), time_ms, None, domain, reason)


def _old_revision(index: int) -> int:
    return _FIRST_REVISION - index % _FIRST_REVISION


def _is_due(index: int, share: float, phase: float = 0.0) -> bool:
    """Spread ``events * share`` lines evenly; which ones they are does not depend on where a reader started.

    An odd ``phase`` keeps two kinds of lines apart that are due equally often.
    """
    return int((index + 1) * share + phase) > int(index * share + phase)


def _spoil(document: dict[str, Any], reason: Reason, oversized_bytes: int) -> bytes:
    """Turn a valid event into a line with exactly one defect."""
    meta = document["meta"]
    if reason is Reason.NOT_JSON:
        line = orjson.dumps(document)
        return line[: len(line) // 2]
    if reason is Reason.NOT_OBJECT:
        return orjson.dumps([document])
    if reason is Reason.OVERSIZED:
        document["comment"] = ""
        document["comment"] = "x" * (oversized_bytes - len(orjson.dumps(document)))
    elif reason is Reason.MISSING_ID:
        del meta["id"]
    elif reason is Reason.MISSING_DOMAIN:
        del meta["domain"]
    elif reason is Reason.MISSING_TYPE:
        document["type"] = None
    elif reason is Reason.MISSING_TIME:
        del document["timestamp"], meta["dt"]
    elif reason is Reason.WRONG_TYPE:
        document["namespace"] = str(document["namespace"])
    elif reason is Reason.INVALID_TIME:
        meta["dt"] = "the other day"
    elif reason is Reason.FUTURE_TIME:
        document["timestamp"] = 32_503_680_000  # the year 3000
    return orjson.dumps(document)


_TYPES: Final = ("edit", "categorize", "log", "new", "142")
_TYPE_SHARES: Final = (0.624, 0.864, 0.944, 0.999, 1.0)

_LOGS: Final[tuple[tuple[str, str, Any], ...]] = (
    ("abusefilter", "hit", {"action": "edit", "filter": 42, "log": 1}),
    ("abusefilter", "hit", {"action": "createaccount", "filter": 7, "log": 2}),
    ("upload", "upload", {"img_sha1": "0" * 31, "img_timestamp": "20260302100000"}),
    ("patrol", "patrol", {"curid": "2", "previd": "1", "auto": 0}),
    ("newusers", "create", {"userid": 1}),
    ("delete", "delete", []),
    ("move", "move", {"target": "Elsewhere", "noredir": "0"}),
    ("thanks", "thank", []),
)


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _iso_ms(time_ms: int) -> str:
    seconds, milliseconds = divmod(time_ms, 1000)
    return f"{_second(seconds)}.{milliseconds:03d}Z"
