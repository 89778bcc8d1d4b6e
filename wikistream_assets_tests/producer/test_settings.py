import re

import pytest
import requests
from pydantic import ValidationError

from producer.exceptions import ProducerConfigError
from producer.service import user_agent
from producer.settings import ProducerSettings, child_environment
from producer.wikis import FOLLOWED_DOMAINS
from wikistream_assets.settings import Settings

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("domains", "followed"),
    [
        ("default", FOLLOWED_DOMAINS),
        ("*", None),
        ("de.wikipedia.org", {"de.wikipedia.org"}),
        (" de.wikipedia.org , www.wikidata.org,", {"de.wikipedia.org", "www.wikidata.org"}),
    ],
)
def test_domain_filter_is_configurable(domains: str, followed: set[str] | None) -> None:
    assert ProducerSettings(domains=domains).followed == followed


@pytest.mark.parametrize(
    ("domains", "words"),
    [
        ("enwiki", "did you mean en.wikipedia.org?"),
        ("zh_yuewiki", "did you mean zh-yue.wikipedia.org?"),
        ("be_x_oldwiki", "did you mean be-tarask.wikipedia.org?"),
        ("simplewiki", "did you mean simple.wikipedia.org?"),
        ("dewiktionary", "did you mean de.wiktionary.org?"),
        ("ptwikibooks", "did you mean pt.wikibooks.org?"),
        ("commonswiki", "did you mean commons.wikimedia.org?"),
        ("wikidatawiki", "did you mean www.wikidata.org?"),
        ("wikidata", "did you mean www.wikidata.org?"),
        ("metawiki", "did you mean meta.wikimedia.org?"),
        ("wikidata.org", "did you mean www.wikidata.org?"),
        ("en", "did you mean en.wikipedia.org?"),
        ("zh-yue", "did you mean zh-yue.wikipedia.org?"),
        ("https://en.wikipedia.org/", "did you mean en.wikipedia.org?"),
        ("//en.wikipedia.org/wiki/Main_Page", "did you mean en.wikipedia.org?"),
        ("en.m.wikipedia.org", "did you mean en.wikipedia.org?"),
        ("www.en.wikipedia.org", "did you mean en.wikipedia.org?"),
        ("en.wikipedia.org:443", "did you mean en.wikipedia.org?"),
        ("en.wikipedia.org.", "did you mean en.wikipedia.org?"),
        ("en.wikpedia.org", "did you mean en.wikipedia.org?"),
        ("en.wikipedia.com", "did you mean en.wikipedia.org?"),
        ("en.wikipedia", "did you mean en.wikipedia.org?"),
        ("'en.wikipedia.org'", "did you mean en.wikipedia.org?"),
        ("en.wikipedia.org de.wikipedia.org", "did you mean en.wikipedia.org,de.wikipedia.org?"),
        ("enwiki;dewiki", "did you mean en.wikipedia.org,de.wikipedia.org?"),
        ("*.wikipedia.org", "is no wiki's domain"),
        ("de.wikipedia.org,*", "stands alone"),
        ("default,de.wikipedia.org", "stands alone"),
        ("de.wikipedia.org,enwiki", "'enwiki' is no wiki's domain"),
        ("", "names no domain"),
        (" , ", "names no domain"),
        ("de.wikipedia.org,\x1b[2J", "is no wiki's domain"),
    ],
)
def test_a_filter_that_lets_nothing_pass_is_told_before_the_run(domains: str, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ProducerSettings(domains=domains)
    (error,) = caught.value.errors()
    assert words in error["msg"]
    assert error["msg"].isprintable()


@pytest.mark.parametrize(
    "domain",
    [
        *(
            "www.wikidata.org",
            "commons.wikimedia.org",
            "zh-min-nan.wikipedia.org",
            "be-tarask.wikipedia.org",
            "wikisource.org",
        ),
        *("www.mediawiki.org", "test.wikipedia.org", "de.wikivoyage.org", "wiki.example.com", "wiki.my-company.co.uk"),
    ],
)
def test_every_wikis_domain_can_be_followed(domain: str) -> None:
    assert ProducerSettings(domains=domain.upper()).followed == {domain}


@pytest.mark.parametrize(
    "contact", ["me@example.org\nX: y", "a\rb", "a\x00", "a\tb", "Jörg <j@example.org>", "維基", "x" * 201, "\x7f"]
)
def test_a_contact_that_no_header_can_carry_is_refused(contact: str) -> None:
    with pytest.raises(ValidationError, match="contact"):
        ProducerSettings(contact=contact)


@pytest.mark.parametrize(
    "contact", ["me@example.org", " https://example.org/us?a=(b) ", "User:Me (en.wikipedia.org)", "a\\b"]
)
def test_a_contact_makes_a_header_of_one_comment(contact: str) -> None:
    agent = user_agent(ProducerSettings(contact=contact), "https://stream.wikimedia.org/v2/stream/recentchange")
    request = requests.Request("GET", "http://127.0.0.1/", headers={"User-Agent": agent}).prepare()
    assert request.headers["User-Agent"] == agent
    name, comment = re.fullmatch(r"(\S+) \(((?:[^()\\]|\\.)*)\) requests-sse/\S+", agent).groups()  # type: ignore[union-attr]
    assert name.startswith("WikiStream/")
    assert re.sub(r"\\(.)", r"\1", comment) == contact.strip()


def test_only_a_server_of_others_asks_for_a_contact() -> None:
    nobody = ProducerSettings()
    assert "(local)" in user_agent(nobody, "http://127.0.0.1:5/v2/stream/recentchange")
    with pytest.raises(ProducerConfigError, match=r"WIKISTREAM_CONTACT.*e-mail address or a URL"):
        user_agent(nobody, "https://stream.wikimedia.org/v2/stream/recentchange")


@pytest.mark.parametrize(
    "url",
    [
        "stream.wikimedia.org",
        "ftp://x/y",
        "http://",
        "https://a b/",
        "http://[::1",
        "http://h:99999/",
        "http://é/",
        "http://a/\n",
    ],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="stream_url"):
        ProducerSettings(stream_url=url)


def test_a_failpoint_is_refused_in_production() -> None:
    assert ProducerSettings(env="staging", failpoint="producer.after_commit").failpoint
    with pytest.raises(ValidationError, match="WIKISTREAM_FAILPOINT"):
        ProducerSettings(env="prod", failpoint="producer.after_commit")


def test_a_misspelt_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WIKISTREAM_DOMAIN", "*")
    with pytest.raises(ValidationError, match="WIKISTREAM_DOMAIN"):
        ProducerSettings()


def test_a_child_sees_the_same_settings_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WIKISTREAM_HOME", "/nowhere")
    monkeypatch.setenv("WIKISTREAM_DOMAINS", "fr.wikipedia.org")
    monkeypatch.setenv("SOMETHING_ELSE", "kept")
    parent = Settings(domains="*", producer_batch_seconds=0.5)
    environment = child_environment(parent)
    assert environment["SOMETHING_ELSE"] == "kept"
    for name in [name for name in environment if name.startswith("WIKISTREAM_")]:
        monkeypatch.setenv(name, environment[name])
    monkeypatch.delenv("WIKISTREAM_HOME")
    assert ProducerSettings() == ProducerSettings(
        **{name: getattr(parent, name) for name in ProducerSettings.model_fields}
    )
    assert ProducerSettings().followed is None
    assert "WIKISTREAM_HOME" not in environment
