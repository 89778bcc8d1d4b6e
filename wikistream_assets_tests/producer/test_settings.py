import pytest
from pydantic import ValidationError

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
