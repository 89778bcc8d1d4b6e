"""What counts as large, risky and healthy, and which wikis make up a region: figures of the contracts that people may set.

The transforms compute with them and the rules audit with them. ``criteria.toml`` in the data directory holds those that differ
from the defaults, which are the figures of the original WikiStream.
"""

import hashlib
import json
import tomllib
from collections.abc import Sequence
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from producer.wikis import REGION_BY_DOMAIN, Region, parse_domains
from wikistream_assets.exceptions import ConfigurationError

_Number = Annotated[int, Field(ge=0, lt=2**31)]
_Points = Annotated[int, Field(ge=0, le=100)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Tier(_Section):
    """Points for a figure that is more than ``above``. Of several tiers the highest one that is reached counts."""

    above: int = Field(gt=-(2**53), lt=2**53)
    points: _Points


class ShareTier(_Section):
    """Points for a share that is less than ``below`` percent. Of several tiers the lowest one that holds counts."""

    below: float = Field(gt=0, le=100)
    points: _Points


def _check_order(bounds: Sequence[float], tiers: Sequence[Tier | ShareTier]) -> None:
    points = [tier.points for tier in tiers]
    if list(bounds) != sorted(set(bounds)) or points != sorted(points):
        raise ValueError("each tier must ask for more than the one before it and give no fewer points")


def _most(tiers: Sequence[Tier | ShareTier]) -> int:
    return max((tier.points for tier in tiers), default=0)


class Sizes(_Section):
    """From when on a change is large, bytes."""

    large_deletion_bytes: _Number = Field(5_000, description="a change that removes more bytes is a large deletion")
    large_addition_bytes: _Number = Field(50_000, description="a change that adds more bytes is a large addition")


class Risk(_Section):
    """How a user's day is scored."""

    min_edits: int = Field(5, ge=1, lt=2**31, description="users with fewer edits on a day are not scored")
    edits_per_hour: tuple[Tier, ...] = Field(
        (Tier(above=50, points=40),), description="points for edits in an active hour"
    )
    large_deletions: tuple[Tier, ...] = Field((Tier(above=3, points=30),), description="points for large deletions")
    anonymous_percentage: tuple[Tier, ...] = Field(
        (Tier(above=50, points=20),), description="points for the share of edits without an account, percent"
    )
    domains: tuple[Tier, ...] = Field(
        (Tier(above=5, points=10),), description="points for different wikis, only of users who are fast"
    )
    fast_edits_per_hour: _Number = Field(50, description="who makes more edits in an active hour is fast in that sense")
    medium_from: int = Field(40, ge=1, le=100, description="from this score on the level is MEDIUM")
    high_from: int = Field(70, ge=1, le=100, description="from this score on the level is HIGH, and an alert is sent")

    @field_validator("edits_per_hour", "large_deletions", "anonymous_percentage", "domains")
    @classmethod
    def _rising(cls, tiers: tuple[Tier, ...]) -> tuple[Tier, ...]:
        _check_order([tier.above for tier in tiers], tiers)
        return tiers

    @model_validator(mode="after")
    def _within_the_scale(self) -> Self:
        most = sum(
            _most(tiers)
            for tiers in (self.edits_per_hour, self.large_deletions, self.anonymous_percentage, self.domains)
        )
        if most > 100:
            raise ValueError(f"the highest points of the four factors add up to {most}: make them 100 at most")
        if self.medium_from >= self.high_from:
            raise ValueError(f"medium_from is {self.medium_from} and must be below high_from, {self.high_from}")
        return self


class Health(_Section):
    """What the health score of a day is made of; the points add up to 100."""

    low_risk: _Points = Field(40, description="points, times the share of scored users whose level is LOW")
    registered: _Points = Field(30, description="points, times the share of events by registered users")
    growth: tuple[Tier, ...] = Field(
        (Tier(above=0, points=20),), description="points for the bytes by which all pages together have grown"
    )
    large_deletions: tuple[ShareTier, ...] = Field(
        (ShareTier(below=1, points=10),), description="points for a low share of large deletions, percent of events"
    )

    @field_validator("growth")
    @classmethod
    def _rising(cls, tiers: tuple[Tier, ...]) -> tuple[Tier, ...]:
        _check_order([tier.above for tier in tiers], tiers)
        return tiers

    @field_validator("large_deletions")
    @classmethod
    def _falling(cls, tiers: tuple[ShareTier, ...]) -> tuple[ShareTier, ...]:
        _check_order([-tier.below for tier in tiers], tiers)
        return tiers

    @model_validator(mode="after")
    def _within_the_scale(self) -> Self:
        most = self.low_risk + self.registered + _most(self.growth) + _most(self.large_deletions)
        if most != 100:
            raise ValueError(f"the highest points of the four parts add up to {most}: make them 100")
        return self


def _default_domains(region: Region) -> tuple[str, ...]:
    return tuple(sorted(domain for domain, its_region in REGION_BY_DOMAIN.items() if its_region == region))


class Regions(_Section):
    """The wikis of each region, by domain; every other wiki is in ``other``."""

    americas: tuple[str, ...] = _default_domains("americas")
    asia_pacific: tuple[str, ...] = _default_domains("asia_pacific")
    europe: tuple[str, ...] = _default_domains("europe")
    middle_east: tuple[str, ...] = _default_domains("middle_east")

    @field_validator("*")
    @classmethod
    def _domains(cls, domains: tuple[str, ...]) -> tuple[str, ...]:
        for domain in domains:
            if parse_domains(domain) != frozenset({domain}):
                raise ValueError(f"{domain!r} is no single wiki's domain: write it like de.wikipedia.org")
        return tuple(sorted(set(domains)))

    @model_validator(mode="after")
    def _one_region_each(self) -> Self:
        seen: dict[str, str] = {}
        for region, domains in self:
            for domain in domains:
                if domain in seen:
                    raise ValueError(f"{domain} is in {seen[domain]} and in {region}: leave it in one of them")
                seen[domain] = region
        return self

    @property
    def by_domain(self) -> dict[str, str]:
        """Domain -> region, of all regions but ``other``."""
        return {domain: region for region, domains in self for domain in domains}


class Criteria(_Section):
    """All of them."""

    sizes: Sizes = Sizes()
    risk: Risk = Risk()
    health: Health = Health()
    regions: Regions = Regions()

    @property
    def changed(self) -> dict[str, dict[str, object]]:
        """What differs from the defaults: section -> name -> value as in JSON."""
        mine, defaults = self.model_dump(mode="json"), DEFAULT_CRITERIA.model_dump(mode="json")
        sections = {
            section: {name: value for name, value in values.items() if value != defaults[section][name]}
            for section, values in mine.items()
        }
        return {section: values for section, values in sections.items() if values}

    @property
    def fingerprint(self) -> str:
        """Eight hexadecimal digits that stand for what differs from the defaults; "" if nothing does."""
        if not self.changed:
            return ""
        return hashlib.sha256(json.dumps(self.changed, sort_keys=True).encode()).hexdigest()[:8]


DEFAULT_CRITERIA: Final = Criteria()


def parse_criteria(text: str, name: str) -> Criteria:
    """Read the text of a criteria file.

    Args:
        name: of the file, for errors.

    Raises:
        ConfigurationError: it is no TOML, or a figure cannot be; names each wrong one and what it must be.
    """
    try:
        # By way of JSON, in which a list may stand for a tuple although nothing else is converted.
        return Criteria.model_validate_json(json.dumps(tomllib.loads(text), default=str))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{name} is no TOML: {error}") from None
    except ValidationError as error:
        wrong = (f"{'.'.join(map(str, item['loc']))}: {_reason(item['type'], item['msg'])}" for item in error.errors())
        raise ConfigurationError(f"{name}: {'; '.join(wrong)}") from None


def as_toml(criteria: Criteria) -> str:
    """A criteria file with every figure and what it means; ``parse_criteria`` gives the same criteria again."""
    lines = []
    for section, figures in criteria:
        lines.append(f"[{section}]  # {(type(figures).__doc__ or '').rstrip('.')}")
        for name, field in type(figures).model_fields.items():
            if field.description:
                lines.append(f"# {field.description}")
            lines.append(f"{name} = {_toml_value(getattr(figures, name))}")
        lines.append("")
    return "\n".join(lines)


def _toml_value(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml_value, value))}]"
    if isinstance(value, BaseModel):
        return f"{{ {', '.join(f'{name} = {_toml_value(its)}' for name, its in value)} }}"
    return json.dumps(value)


def _reason(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "is no criterion; 'wikistream criteria' prints all of them"
    return message.removeprefix("Value error, ")
