"""How the project starts its own modules as processes."""

import sys


def module_command(module: str, *arguments: str) -> list[str]:
    """Return the command line that runs a module with this Python.

    Isolated (``-I``): neither the current folder nor ``PYTHONPATH`` is searched, or a ``producer.py`` or ``logging.py`` that lies
    there would run instead. File names are UTF-8 whatever the locale says, as they are for Java and in the lake.
    """
    return [sys.executable, "-I", "-X", "utf8", "-m", module, *arguments]
