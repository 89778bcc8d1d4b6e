"""The command ``wikistream``, also as ``python -m wikistream_assets`` for whoever starts it without a PATH."""

from wikistream_assets.machine import variables


def main() -> None:
    """Entry point of the console script."""
    variables.adopt()  # before anything else is imported: what the user's environment names may be of another installation
    from wikistream_assets.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
