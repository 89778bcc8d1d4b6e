"""What a wiki's domain says about it: its region and its language."""

from typing import Final

from pyspark.sql import Column
from pyspark.sql import functions as sf

from wikistream_assets.quality.criteria import Regions

MULTILINGUAL: Final = "mul"
"""ISO 639's code for content in several languages."""

_PROJECTS: Final = "wikipedia|wiktionary|wikibooks|wikinews|wikiquote|wikisource|wikiversity|wikivoyage"
_EDITION: Final = rf"^([a-z]{{2,3}})(?:-[a-z-]+)?\.(?:{_PROJECTS})\.org$"
_NOT_A_LANGUAGE: Final = ("www", "ten")
"""Labels that look like a language code: the portals, and the wiki of the tenth anniversary."""


def region(domain: Column, regions: Regions) -> Column:
    """The one region of ``domain``; ``other`` if it is in none of ``regions``."""
    expression = sf.lit("other")
    for name, domains in regions:
        if domains:
            expression = sf.when(domain.isin(*domains), sf.lit(name)).otherwise(expression)
    return expression


def language(domain: Column) -> Column:
    """The ISO 639 code of the edition's language, ``mul`` where a wiki has no single one.

    The code is the first two or three letters of the domain's label: ``zh`` for both zh.wikipedia.org and
    zh-yue.wikipedia.org. Only the editions of the eight language projects have one: ca.wikimedia.org is Canada's chapter, not a
    Catalan wiki, and commons, meta, species, www.wikidata.org are multilingual. simple.wikipedia.org is English.
    """
    code = sf.regexp_extract(domain, _EDITION, 1)
    return (
        sf.when(domain.startswith("simple."), sf.lit("en"))
        .when((code == "") | code.isin(*_NOT_A_LANGUAGE) | domain.isNull(), sf.lit(MULTILINGUAL))
        .otherwise(code)
    )
