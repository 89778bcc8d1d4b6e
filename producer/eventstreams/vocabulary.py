"""What the synthetic events are made of: wikis, words, titles, users, comments. All invented, all derived from the seed.

The shares are those of the public captures: two thirds of the whole stream is Wikidata, Commons and wikis that the default
filter does not follow.
"""

from dataclasses import dataclass
from random import Random
from typing import Final
from urllib.parse import quote

from producer.wikis import LANGUAGES_BY_REGION

_FOLLOWED_WEIGHTS: Final = {
    "en": 30, "vi": 9, "fr": 7, "ru": 7, "de": 7, "es": 6, "zh": 5, "ja": 5, "it": 5, "he": 3, "ar": 4, "fa": 3, "pt": 3,
    "pl": 3, "ko": 3, "nl": 2, "id": 2, "th": 1,
}  # fmt: skip
"""Relative shares of the followed wikis among themselves."""

_OTHER_WEIGHTS: Final = {
    ("www.wikidata.org", "wikidatawiki", "en"): 40, ("commons.wikimedia.org", "commonswiki", "en"): 36,
    ("en.wiktionary.org", "enwiktionary", "en"): 6, ("ce.wikipedia.org", "cewiki", "ru"): 5,
    ("uk.wikipedia.org", "ukwiki", "ru"): 5,
    ("sv.wikipedia.org", "svwiki", "de"): 4, ("ur.wikipedia.org", "urwiki", "ar"): 3, ("meta.wikimedia.org", "metawiki", "en"): 1,
}  # fmt: skip
"""The wikis that the default filter leaves out: (domain, database name, script), relative shares among themselves."""

_ALPHABETS: Final = {
    "ru": "абвгдежзиклмнопрстуфхцчшэюя", "zh": "山水人大中国学生文明天地江海城市春秋東西南北",
    "ja": "アイウエオカキクケコ山川田中本日の",
    "ko": "가나다라마바사아자차카타파하한국", "ar": "ابتثجحخدذرزسشصضطظعغفقكلمنهوي", "fa": "ابپتجچحخدرزژسشغفقکگلمنوهی",
    "he": "אבגדהוזחטיכלמנסעפצקרשת", "th": "กขคงจชซดตถทนบปผพมยรลวสหอ", "vi": "abcdeghiklmnopqrstuvxyàáâãèéêìíòóôõùúăđĩũơư",
    "fr": "abcdefghijlmnopqrstuvzéèêàçô", "de": "abcdefghijklmnoprstuvwzäöüß", "es": "abcdefghijlmnopqrstuvzáéíóúñ",
    "pl": "abcdefghijklmnoprstuwyząćęłńóśż", "pt": "abcdefghijlmnopqrstuvzãõáéêç",
}  # fmt: skip
_LATIN: Final = "abcdefghijklmnoprstuvwy"  # pragma: allowlist secret

_HOSTILE_MARKS: Final = ("\u200e", "\u202e", "\u0007", "\u001f", "\u0085", "\ufeff", "\t", "\u200b")
"""Marks that a cleaner must deal with: direction marks, control characters, zero-width and byte-order marks."""

_HOSTILE_EVERY: Final = 97
"""One title and one user name in so many carries a mark; rare, as in reality, and yet in every sizeable run."""

_COMMENTS: Final = 400
_NAMESPACES: Final = (0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 6, 10)


@dataclass(frozen=True)
class Page:
    """A page of a wiki: its full title, its address."""

    title: str
    url: str
    namespace: int


@dataclass(frozen=True)
class Wiki:
    """A wiki with its pages, its registered users, and the comments that they leave: (plain, HTML)."""

    domain: str
    database: str
    pages: tuple[Page, ...]
    categories: tuple[Page, ...]
    users: tuple[str, ...]
    comments: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Vocabulary:
    """Everything the generator picks from.

    Attributes:
        wikis: the followed ones first.
        weights: share of each wiki in the events, adding up to 1.
        bots: accounts with the bot flag.
        travellers: registered users who edit in every wiki.
        temporary: temporary accounts; addresses: IPv4 and IPv6, which today are rare.
    """

    wikis: tuple[Wiki, ...]
    weights: tuple[float, ...]
    bots: tuple[str, ...]
    travellers: tuple[str, ...]
    temporary: tuple[str, ...]
    addresses: tuple[str, ...]


def build(seed: int, events: int, followed_share: float, year: int) -> Vocabulary:
    """Invent a world for ``events`` events.

    Args:
        seed: the same seed gives the same world.
        events: scales the number of pages and users, as a longer recording meets more of them.
        followed_share: share of events in the followed wikis, 0 to 1.
        year: goes into the names of temporary accounts.
    """
    random = Random(f"vocabulary:{seed}")  # noqa: S311  # it must be repeatable
    rows = [(f"{lang}.wikipedia.org", f"{lang}wiki", lang) for langs in LANGUAGES_BY_REGION.values() for lang in langs]
    followed = [_FOLLOWED_WEIGHTS[lang] for _, _, lang in rows]
    others = list(_OTHER_WEIGHTS.values())
    weights = tuple(
        [followed_share * weight / sum(followed) for weight in followed]
        + [(1 - followed_share) * weight / sum(others) for weight in others]
    )
    wikis = tuple(
        _wiki(random, row, round(events * w)) for row, w in zip([*rows, *_OTHER_WEIGHTS], weights, strict=True)
    )
    people = max(20, min(events // 60, 5_000))
    return Vocabulary(
        wikis=wikis,
        weights=weights,
        bots=tuple(f"{_word(random, _LATIN).capitalize()}Bot{number}" for number in range(40)),
        travellers=tuple(_user(random, _LATIN, number) for number in range(people)),
        temporary=tuple(
            f"~{year}-{random.randrange(10_000, 99_999)}-{random.randrange(10, 99)}" for _ in range(people * 2)
        ),
        addresses=tuple(_address(random) for _ in range(people)),
    )


def _wiki(random: Random, row: tuple[str, str, str], events: int) -> Wiki:
    domain, database, script = row
    alphabet = _ALPHABETS.get(script, _LATIN)
    words = [_word(random, alphabet) for _ in range(300)]
    return Wiki(
        domain=domain,
        database=database,
        pages=tuple(_page(random, domain, words, number) for number in range(max(20, min(events // 3, 8_000)))),
        categories=tuple(_category(random, domain, words) for _ in range(max(10, min(events // 20, 1_000)))),
        users=tuple(_user(random, alphabet, number) for number in range(max(10, min(events // 10, 5_000)))),
        comments=tuple(_comment(random, words) for _ in range(_COMMENTS)),
    )


def _word(random: Random, alphabet: str) -> str:
    return "".join(random.choices(alphabet, k=random.randint(2, 9)))


def _page(random: Random, domain: str, words: list[str], number: int) -> Page:
    if domain == "www.wikidata.org":
        return _addressed(domain, f"Q{random.randrange(100, 130_000_000)}", 0)
    title = " ".join(random.choices(words, k=random.randint(1, 4))).capitalize()
    if number % _HOSTILE_EVERY == 0:
        title += random.choice(_HOSTILE_MARKS) + random.choice(words)
    namespace = random.choice(_NAMESPACES)
    return _addressed(domain, title if namespace == 0 else f"NS{namespace}:{title}", namespace)


def _category(random: Random, domain: str, words: list[str]) -> Page:
    return _addressed(domain, "Category:" + " ".join(random.choices(words, k=random.randint(1, 5))).capitalize(), 14)


def _addressed(domain: str, title: str, namespace: int) -> Page:
    return Page(title, f"https://{domain}/wiki/{quote(title.replace(' ', '_'), safe=':/')}", namespace)


def _user(random: Random, alphabet: str, number: int) -> str:
    name = f"{_word(random, alphabet).capitalize()} {_word(random, alphabet).capitalize()} {number}"
    return f"{name}{random.choice(_HOSTILE_MARKS)}" if number % _HOSTILE_EVERY == 0 else name


def _address(random: Random) -> str:
    """An address from the ranges reserved for documentation (RFC 5737, RFC 3849): nobody's."""
    if random.random() < 0.7:
        return f"{random.choice(('192.0.2', '198.51.100', '203.0.113'))}.{random.randrange(1, 255)}"
    return "2001:DB8:" + ":".join(f"{random.getrandbits(16):X}" for _ in range(6))


def _comment(random: Random, words: list[str]) -> tuple[str, str]:
    section = " ".join(random.choices(words, k=2))
    text = " ".join(random.choices(words, k=random.randint(3, 16)))
    anchor = quote(section.replace(" ", "_"))
    html = (
        f'<span dir="auto"><span class="autocomment"><a href="/wiki/#{anchor}" title="{section}">→\u200e{section}</a>: </span>'
        f'</span> {text} <a href="/wiki/Special:Help/{anchor}" title="Special:Help/{section}">?</a>'
    )
    return f"/* {section} */ {text}", html
