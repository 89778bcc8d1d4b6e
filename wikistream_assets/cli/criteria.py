"""``wikistream criteria``: what counts as large, risky and healthy, and the regions."""

import typer

from wikistream_assets.quality.criteria import as_toml
from wikistream_assets.settings import load_criteria, load_settings
from wikistream_assets.streams.edits.tables.gold import schema_version


def criteria() -> None:
    """Print the criteria in force as TOML: what counts as large, risky and healthy, and the wikis of each region.

    Saved as criteria.toml in the data directory and changed there, they hold from the next cycle on.
    """
    settings = load_settings()
    in_force = load_criteria(settings)
    origin = settings.criteria_file if settings.criteria_file.exists() else "the defaults"
    typer.echo(f"# From {origin}; rows of Gold carry schema_version {schema_version(in_force)}.\n")
    typer.echo(as_toml(in_force), nl=False)
