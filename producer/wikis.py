"""The followed wikis: one region and one language for each domain.

This one table serves the producer's default filter, Silver's ``region`` and ``language``, and the quality rules. A domain has
exactly one region, so the regions' shares of a day add up to 100 %.
"""

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
