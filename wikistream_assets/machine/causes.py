"""What a failed program's output says: the cause in one line, and the advice that fits it."""

import re
from typing import Final

_KIND: Final = r"(?:[\w$]+\.)*[\w$]+(?:Exception|Error)"
_EXCEPTION: Final = re.compile(
    rf"^(?P<inner>Caused by: |: )?(?:Exception in thread \"[^\"]*\" )?(?P<kind>{_KIND})(?:: ?(?P<text>.*))?$"
)
_WRAPPED: Final = re.compile(rf"{_KIND}: ")
_COMPLAINT: Final = re.compile(
    r"error|exception|fatal|insufficient|could not|cannot|can't|unrecognized|invalid|not found", re.I
)
_EMPTY_WORDS: Final = (
    "Error occurred during initialization of VM",  # the next line says which
    "Error: Could not create the Java Virtual Machine",
    "Error: A fatal exception has occurred",
    "Picked up ",
    "OpenJDK 64-Bit Server VM warning",
)
_LONGEST: Final = 300

_ADVICE: Final = (
    (("No space left on device", "Disk quota exceeded"), "make room"),
    (("Read-only file system",), "make its file system writable"),
    (("Permission denied", "AccessDenied", "Operation not permitted"), "correct its permissions"),
    (("Address already in use",), "stop what uses the port, or set another one"),
    (("Too many open files",), "raise the limit with 'ulimit -n 4096'"),
    (
        ("Could not reserve enough space", "Cannot allocate memory", "insufficient memory", "OutOfMemoryError"),
        "free memory, or lower WIKISTREAM_SPARK_MEMORY_MB and WIKISTREAM_KAFKA_HEAP_MB",
    ),
    (("Name or service not known", "name resolution"), "check the name and this machine's name service"),
    (("failed to map segment",), "set TMPDIR to a folder that is not mounted noexec"),
)


def cause_of(output: str) -> str:
    """The cause that a failed program's output names, in one line of at most 300 characters.

    The first exception counts, as what follows is mostly its consequences, and of that one the innermost cause. Without an
    exception it is the first line that complains, or else the last line.
    """
    lines = [line.strip("# \t\r") if line.startswith("#") else line.rstrip() for line in output.splitlines()]
    chain: list[str] = []
    for line in lines:
        found = _EXCEPTION.match(line)
        if found and found["inner"] and chain:
            chain.append(_told(found))
        elif found and chain:
            break
        elif found:
            chain = [_told(found)]
    cause = _innermost(chain) if chain else _complaint(lines)
    return cause if len(cause) <= _LONGEST else f"{cause[: _LONGEST - 2]}.."


def advice_for(cause: str) -> str:
    """What helps against a cause that is known, e.g. "make room"; empty for any other."""
    return next((advice for words, advice in _ADVICE if any(word in cause for word in words)), "")


def with_advice(way_out: str, error: OSError) -> str:
    """The advice that fits the error, if any does, and a way out that always helps."""
    advice = advice_for(error.strerror or "")
    return f"{advice}, or {way_out}" if advice else way_out


def _told(found: re.Match[str]) -> str:
    kind, text = found["kind"].rpartition(".")[2], (found["text"] or "").strip()
    return (
        text if " " in text else f"{kind}: {text}".removesuffix(": ")
    )  # a path alone does not say what is wrong with it


def _innermost(chain: list[str]) -> str:
    """The last one, or one around it that says the same and more, such as the address that is in use."""
    fuller = [text for text in chain if chain[-1] in text and not _WRAPPED.match(text)]
    return (fuller or chain[-1:])[0]


def _complaint(lines: list[str]) -> str:
    telling = [line for line in lines if line.strip() and not line[0].isspace() and not line.startswith(_EMPTY_WORDS)]
    complaints = [line for line in telling if _COMPLAINT.search(line)]
    return (complaints or telling[-1:] or ["no output"])[0]
