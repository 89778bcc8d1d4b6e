"""``python -m bench``: every measurement in turn; a JSON line of each is appended to ``bench/results/results.jsonl``."""

import argparse
from collections.abc import Callable
from typing import Any, Final

from bench import bronze, catch_up, cycle, producer
from bench.record import append

_BENCHES: Final[dict[str, Callable[[], dict[str, Any]]]] = {
    "producer": producer.run,
    "bronze": bronze.run,
    "cycle": cycle.run,
    "catch_up": catch_up.run,
}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which of {', '.join(_BENCHES)}; all by default")
    names = parser.parse_args().names or list(_BENCHES)
    if unknown := sorted(set(names) - _BENCHES.keys()):
        parser.error(f"no bench {', '.join(unknown)}; there are {', '.join(_BENCHES)}")
    for name in names:
        print(f"\n== {name}", flush=True)
        append(_BENCHES[name]())


if __name__ == "__main__":
    main()
