"""Text from strangers made harmless: no control sequence reaches a terminal, a log or a mail; no override of direction hides it.

Knows nothing of where the text goes. What a terminal's table, a spreadsheet or a chat needs on top stands where they are
written (``cli.console``, ``alerts.channels``).
"""

import unicodedata
from typing import Final

# Persian and Indic titles need the zero-width joiners; they only choose between letter forms.
_HARMLESS: Final = frozenset("\u200c\u200d")


def printable(text: str) -> str:
    r"""``text`` with every character that a terminal could obey written out: ``\x1b``, ``\n``, ``\u202e``."""
    return text if text.isprintable() else "".join(c if is_safe(c) else _escaped(c) for c in text)


def is_safe(character: str) -> bool:
    """Whether a terminal only shows the character, and does not obey it."""
    return character.isprintable() or character in _HARMLESS or unicodedata.category(character) == "Zs"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
