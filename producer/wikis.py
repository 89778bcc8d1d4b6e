"""The followed wikis: one region and one language for each domain.

This one table serves the producer's default filter, Silver's ``region`` and ``language``, and the quality rules. A domain has
exactly one region, so the regions' shares of a day add up to 100 %.
"""

import re
from difflib import get_close_matches
from typing import Final, Literal, get_args

Region = Literal["americas", "asia_pacific", "europe", "middle_east", "other"]

REGIONS: Final[tuple[Region, ...]] = get_args(Region)

LANGUAGES_BY_REGION: Final[dict[Region, tuple[str, ...]]] = {
    "americas": ("en", "pt"),
    "asia_pacific": ("zh", "ja", "ko", "vi", "id", "th"),
    # Spanish counts once, in Europe; listing it in the Americas too would make the regions add up to more than 100 %.
    "europe": ("de", "fr", "es", "it", "pl", "nl", "ru"),
    "middle_east": ("ar", "fa", "he"),
}

REGION_BY_DOMAIN: Final[dict[str, Region]] = {
    f"{language}.wikipedia.org": region for region, languages in LANGUAGES_BY_REGION.items() for language in languages
}

FOLLOWED_DOMAINS: Final[frozenset[str]] = frozenset(REGION_BY_DOMAIN)
"""The 18 domains of the default filter: the seven most active editions and the regional sets."""

CANARY_DOMAIN: Final = "canary"
"""``meta.domain`` of the heartbeat events that EventStreams sends into every stream."""

_LANGUAGE_PROJECTS: Final = (
    *("wiktionary", "wikibooks", "wikinews", "wikiquote", "wikisource", "wikiversity", "wikivoyage", "wikipedia"),
)
_PROJECTS: Final = frozenset(
    f"{name}.org" for name in (*_LANGUAGE_PROJECTS, "wikimedia", "wikidata", "mediawiki", "wikifunctions")
)
_WITHOUT_LANGUAGE: Final = {
    "wikidata": "www.wikidata.org", "mediawiki": "www.mediawiki.org", "wikifunctions": "www.wikifunctions.org",
    "commons": "commons.wikimedia.org", "meta": "meta.wikimedia.org", "species": "species.wikimedia.org",
    "incubator": "incubator.wikimedia.org", "outreach": "outreach.wikimedia.org", "foundation": "foundation.wikimedia.org",
    "be_x_old": "be-tarask.wikipedia.org", "sources": "wikisource.org",
}  # fmt: skip
"""Wikis whose database name (without ``wiki``) is not their language: MediaWiki's rule has no other way to tell them."""

_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN: Final = re.compile(rf"(?:{_LABEL}\.)+{_LABEL}")
_DATABASE: Final = re.compile(rf"([a-z][a-z0-9_]*?)(wiki|{'|'.join(_LANGUAGE_PROJECTS[:-1])})")
_LANGUAGE: Final = re.compile(r"[a-z]{2,3}(?:-[a-z]+)*|simple")


def parse_domains(text: str) -> frozenset[str] | None:
    """Read ``WIKISTREAM_DOMAINS``: None follows all wikis.

    Raises:
        ValueError: it names something that no event can come from; the text says what was meant, as far as it can be known.
    """
    names = [name for part in text.split(",") if (name := part.strip().lower())]
    if names == ["*"]:
        return None
    if names == ["default"]:
        return FOLLOWED_DOMAINS
    if not names:
        raise ValueError(
            "names no domain: write 'default', '*' for all, or domains, e.g. de.wikipedia.org,www.wikidata.org"
        )
    for name in names:
        if name in ("*", "default"):
            raise ValueError(f"{name!r} stands alone: leave the domains out, or leave it out")
        if name != (meant := _meant(name)):
            raise ValueError(
                f"{name!r} is no wiki's domain{f': did you mean {meant}?' if meant else ', e.g. de.wikipedia.org'}"
            )
    return frozenset(names)


def _meant(name: str) -> str | None:
    """``name`` itself if it may be the domain of a wiki, else the one that it looks like; None if it looks like none."""
    if len(parts := name.split()) > 1 or len(parts := name.split(";")) > 1:
        found = [_meant(part) for part in parts if part]
        return ",".join(part for part in found if part) if all(found) else None
    host = re.sub(r"[/?#:].*", "", re.sub(r"^([a-z]+:)?//", "", name)).strip(".'\"")
    if "." not in host:
        return _of_database(host)
    host = re.sub(r"\.m\.", ".", re.sub(r"^www\.(?=[^.]+\.[^.]+\.)", "", host))  # the mobile site, a www too much
    base = ".".join(host.split(".")[-2:])
    if base in _PROJECTS:
        bare = _WITHOUT_LANGUAGE.get(base.removesuffix(".org"))
        return bare if host == base and bare else host if _DOMAIN.fullmatch(host) else None
    if host.count(".") == 1 and base.split(".")[1] in _LANGUAGE_PROJECTS:
        return f"{host}.org"
    close = get_close_matches(base, _PROJECTS, n=1, cutoff=0.8)
    if close:
        return f"{host.removesuffix(base)}{close[0]}"
    return host if _DOMAIN.fullmatch(host) else None


def _of_database(name: str) -> str | None:
    """The domain of a database name (``enwiki``, ``zh_yuewiki``, ``dewiktionary``), a project's name or a language."""
    if name in _WITHOUT_LANGUAGE:
        return _WITHOUT_LANGUAGE[name]
    if found := _DATABASE.fullmatch(name):
        label, project = found[1], found[2]
        if project == "wiki" and label in _WITHOUT_LANGUAGE:
            return _WITHOUT_LANGUAGE[label]
        return f"{label.replace('_', '-')}.{'wikipedia' if project == 'wiki' else project}.org"
    return f"{name}.wikipedia.org" if _LANGUAGE.fullmatch(name) else None
