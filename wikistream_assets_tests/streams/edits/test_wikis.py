import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as sf

from producer.wikis import FOLLOWED_DOMAINS
from wikistream_assets.quality.criteria import DEFAULT_CRITERIA
from wikistream_assets.streams.edits.wikis import language, region

pytestmark = pytest.mark.spark

FOLLOWED = {
    "en.wikipedia.org": ("americas", "en"),
    "pt.wikipedia.org": ("americas", "pt"),
    "zh.wikipedia.org": ("asia_pacific", "zh"),
    "ja.wikipedia.org": ("asia_pacific", "ja"),
    "ko.wikipedia.org": ("asia_pacific", "ko"),
    "vi.wikipedia.org": ("asia_pacific", "vi"),
    "id.wikipedia.org": ("asia_pacific", "id"),
    "th.wikipedia.org": ("asia_pacific", "th"),
    "de.wikipedia.org": ("europe", "de"),
    "fr.wikipedia.org": ("europe", "fr"),
    "es.wikipedia.org": ("europe", "es"),
    "it.wikipedia.org": ("europe", "it"),
    "pl.wikipedia.org": ("europe", "pl"),
    "nl.wikipedia.org": ("europe", "nl"),
    "ru.wikipedia.org": ("europe", "ru"),
    "ar.wikipedia.org": ("middle_east", "ar"),
    "fa.wikipedia.org": ("middle_east", "fa"),
    "he.wikipedia.org": ("middle_east", "he"),
}
OTHERS = {
    "sv.wikipedia.org": ("other", "sv"),
    "ceb.wikipedia.org": ("other", "ceb"),
    "en.wiktionary.org": ("other", "en"),
    "fr.wikisource.org": ("other", "fr"),
    "zh-yue.wikipedia.org": ("other", "zh"),
    "zh-min-nan.wikipedia.org": ("other", "zh"),
    "be-tarask.wikipedia.org": ("other", "be"),
    "simple.wikipedia.org": ("other", "en"),
    "commons.wikimedia.org": ("other", "mul"),
    "meta.wikimedia.org": ("other", "mul"),
    "species.wikimedia.org": ("other", "mul"),
    "ca.wikimedia.org": ("other", "mul"),
    "www.wikidata.org": ("other", "mul"),
    "www.wikisource.org": ("other", "mul"),
    "www.mediawiki.org": ("other", "mul"),
    "ten.wikipedia.org": ("other", "mul"),
    "test.wikipedia.org": ("other", "mul"),
    "wikisource.org": ("other", "mul"),
    "en.wikipedia.org.example": ("other", "mul"),
    "": ("other", "mul"),
    None: ("other", "mul"),
}


def test_region_and_language_of_followed_and_other_wikis(spark: SparkSession) -> None:
    table = {**FOLLOWED, **OTHERS}
    rows = spark.createDataFrame([(domain,) for domain in table], "domain string")
    found = rows.select(
        "domain", region(sf.col("domain"), DEFAULT_CRITERIA.regions), language(sf.col("domain"))
    ).collect()
    assert {domain: (its_region, its_language) for domain, its_region, its_language in found} == table


def test_the_table_holds_every_followed_wiki() -> None:
    assert FOLLOWED.keys() == FOLLOWED_DOMAINS
    assert len(FOLLOWED) == 18
