"""The criteria: a file of them is read whole or refused in one line that names the figure."""

import pytest

from producer.wikis import REGIONS
from wikistream_assets.exceptions import ConfigurationError
from wikistream_assets.quality.criteria import (
    DEFAULT_CRITERIA,
    Criteria,
    Health,
    Regions,
    Risk,
    ShareTier,
    Sizes,
    Tier,
    as_toml,
    parse_criteria,
)
from wikistream_assets.streams.edits.tables.gold import schema_version
from wikistream_assets.streams.registry import ALL_TABLES

pytestmark = pytest.mark.unit

CHANGED = Criteria(
    sizes=Sizes(large_deletion_bytes=0),
    risk=Risk(edits_per_hour=(Tier(above=10, points=10), Tier(above=50, points=40)), domains=(), high_from=60),
    health=Health(low_risk=50, growth=(), large_deletions=(ShareTier(below=0.5, points=20),)),
    regions=Regions(europe=("sv.wikipedia.org", "de.wikipedia.org"), middle_east=()),
)


@pytest.mark.parametrize("criteria", [DEFAULT_CRITERIA, CHANGED])
def test_what_is_printed_is_read_again(criteria: Criteria) -> None:
    assert parse_criteria(as_toml(criteria), "criteria.toml") == criteria


def test_the_defaults_are_those_of_the_original() -> None:
    """Points and bounds as the original's README states them."""
    risk, health = DEFAULT_CRITERIA.risk, DEFAULT_CRITERIA.health
    factors = (risk.edits_per_hour, risk.large_deletions, risk.anonymous_percentage, risk.domains)
    assert [(tier.above, tier.points) for tiers in factors for tier in tiers] == [(50, 40), (3, 30), (50, 20), (5, 10)]
    assert (risk.min_edits, risk.fast_edits_per_hour, risk.medium_from, risk.high_from) == (5, 50, 40, 70)
    assert (health.low_risk, health.registered) == (40, 30)
    assert (health.growth, health.large_deletions) == ((Tier(above=0, points=20),), (ShareTier(below=1, points=10),))
    assert DEFAULT_CRITERIA.sizes == Sizes(large_deletion_bytes=5_000, large_addition_bytes=50_000)
    assert {*Regions.model_fields, "other"} == set(REGIONS)


def test_a_file_may_name_only_what_it_changes() -> None:
    criteria = parse_criteria("[risk]\nhigh_from = 90\n", "criteria.toml")
    assert criteria == Criteria(risk=Risk(high_from=90))
    assert criteria.changed == {"risk": {"high_from": 90}}
    assert parse_criteria("", "criteria.toml") == DEFAULT_CRITERIA


def test_rows_name_the_contract_and_the_criteria_they_were_made_under() -> None:
    assert schema_version(DEFAULT_CRITERIA) == "2"
    versions = {schema_version(criteria) for criteria in (DEFAULT_CRITERIA, CHANGED, Criteria(risk=Risk(high_from=90)))}
    assert len(versions) == 3
    assert all(version.startswith("2+") and len(version) == 10 for version in versions - {"2"})
    # The order in which domains are written is no difference.
    turned = Regions(europe=("de.wikipedia.org", "sv.wikipedia.org"), middle_east=())
    assert schema_version(CHANGED.model_copy(update={"regions": turned})) == schema_version(CHANGED)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("risk", "is no TOML"),
        ("[risk]\nmin_edit = 3", "risk.min_edit: is no criterion; 'wikistream criteria' prints all of them"),
        ("[risks]", "risks: is no criterion"),
        ("[risk]\nmin_edits = 0", "risk.min_edits: Input should be greater than or equal to 1"),
        ("[risk]\nmin_edits = '5'", "risk.min_edits: Input should be a valid integer"),
        ("[risk]\nmin_edits = true", "risk.min_edits: Input should be a valid integer"),
        ("[risk]\nmedium_from = 70", "risk: medium_from is 70 and must be below high_from, 70"),
        ("[risk]\nhigh_from = 101", "risk.high_from: Input should be less than or equal to 100"),
        (
            "[risk]\nlarge_deletions = [{ above = 3, points = 31 }]",
            "risk: the highest points of the four factors add up to 101: make them 100 at most",
        ),
        (
            "[risk]\ndomains = [{ above = 5, points = 5 }, { above = 5, points = 10 }]",
            "risk.domains: each tier must ask for more than the one before it and give no fewer points",
        ),
        ("[risk]\ndomains = [{ above = 5, points = 5 }, { above = 9, points = 4 }]", "risk.domains: each tier"),
        ("[risk]\ndomains = [{ above = 5 }]", "risk.domains.0.points: Field required"),
        ("[health]\nlow_risk = 41", "health: the highest points of the four parts add up to 101: make them 100"),
        (
            "[health]\nlarge_deletions = [{ below = 1, points = 5 }, { below = 2, points = 10 }]",
            "health.large_deletions: each tier must ask for more than the one before it",
        ),
        ("[health]\nlarge_deletions = [{ below = nan, points = 10 }]", "health.large_deletions.0.below: Input should"),
        ("[sizes]\nlarge_deletion_bytes = -1", "sizes.large_deletion_bytes: Input should be greater than or equal"),
        ("[sizes]\nlarge_addition_bytes = 1e4", "sizes.large_addition_bytes: Input should be a valid integer"),
        ("[regions]\nmars = []", "regions.mars: is no criterion"),
        ("[regions]\neurope = ['enwiki']", "'enwiki' is no wiki's domain: did you mean en.wikipedia.org?"),
        ("[regions]\neurope = ['default']", "regions.europe: 'default' is no single wiki's domain"),
        ("[regions]\neurope = [\"a' or 'b\"]", "regions.europe: "),
        (
            "[regions]\neurope = ['en.wikipedia.org']",
            "regions: en.wikipedia.org is in americas and in europe: leave it in one of them",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(text: str, told: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        parse_criteria(text, "criteria.toml")
    assert str(error.value).startswith("criteria.toml")
    assert told in str(error.value)
    assert str(error.value).isprintable()


def test_only_the_bounds_of_a_tables_rules_follow_the_criteria() -> None:
    """Names, order and the texts that Dagster shows are the same under any criteria."""
    for spec in ALL_TABLES:
        assert spec.rules_under(DEFAULT_CRITERIA) == spec.rules
        changed = spec.rules_under(CHANGED)
        assert [(rule.name, rule.description) for rule in changed] == [
            (rule.name, rule.description) for rule in spec.rules
        ]
        differ = {rule.name for rule, default in zip(changed, spec.rules, strict=True) if rule != default}
        assert differ == {
            "silver.cleaned_events": {"region_mapping", "size_flags_consistent"},
            "gold.risk_scores": {"risk_level_consistent"},
        }.get(spec.identifier, set())
