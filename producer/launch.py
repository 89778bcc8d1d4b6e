"""One source for every spelling of ``SOURCE``, and the producer as child processes on it.

Belongs here: what ``wikistream demo``, tests and benches need to run the ingest side as it runs in production. Does not belong
here: the broker, and what is done with the events afterwards.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from producer import sink
from producer.cursor import Cursor
from producer.envelope import SourceMode
from producer.eventstreams import capture
from producer.eventstreams.generator import Generator
from producer.exceptions import ProducerConfigError, ProducerError, SourceError
from producer.paths import absolute
from producer.python import module_command
from producer.settings import ProducerSettings, child_environment

_STOP_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Source:
    """Where events come from.

    Attributes:
        identity: key of the cursor.
        mode: live, replay or synthetic.
        url: of a live stream; None if the project's own server is to serve it.
        serve: the server's arguments.
        frames: how many events it holds; None for a live stream.
        generator: of a synthetic source.
        remarks: what the user ought to know before the run, a line each.
    """

    identity: str
    mode: SourceMode
    url: str | None = None
    serve: tuple[str, ...] = ()
    frames: int | None = None
    generator: Generator | None = None
    remarks: tuple[str, ...] = ()


def source_from(spec: str, settings: ProducerSettings, generator: Generator | None = None) -> Source:
    """Understand ``SOURCE``: ``synthetic``, ``live``, or the path of a capture, which is read to its end to see that it is sound.

    Args:
        spec: what the user wrote.
        settings: for the address of the live stream, and who asks for it.
        generator: parameters of the synthetic source; default ones if not given.

    Raises:
        ProducerConfigError: it is none of them, or ``live`` without a contact.
        SourceError: a capture that cannot be used.
    """
    if spec == "live":
        settings.require_contact()
        return Source(identity=f"live:{settings.stream_url}", mode="live", url=settings.stream_url)
    if spec == "synthetic":
        made = generator or Generator()
        return Source(made.identity, "synthetic", serve=_generator_arguments(made), frames=made.events, generator=made)
    path = capture_path(spec)
    found = capture.inspect(path)
    return Source(
        identity=f"capture:sha256={found.sha256}",
        mode="replay",
        serve=("--source", str(path), "--sha256", found.sha256),
        frames=found.frames,
        remarks=found.remarks,
    )


def capture_path(spec: str) -> Path:
    """The absolute path of a capture; the words ``live`` and ``synthetic`` and what may have been meant by them are none.

    Raises:
        ProducerConfigError: it is no path.
    """
    word = spec.strip()
    if not word:
        raise ProducerConfigError("SOURCE is empty: give synthetic, live, or the path of a capture")
    if word == "-":
        raise ProducerConfigError(
            "SOURCE cannot be read from a pipe: save the events to a file, e.g. cat > events.jsonl"
        )
    if scheme := re.match(r"([a-z][a-z0-9+.-]+)://", word, re.IGNORECASE):
        if scheme[1].lower() in ("http", "https"):
            advice = f"a stream is read with SOURCE=live and WIKISTREAM_STREAM_URL={word}, a file after it has been downloaded"
        else:
            advice = "copy the capture to this machine and give its path"
        raise ProducerConfigError(f"SOURCE={word} is an address, not a file: {advice}")
    try:
        path = absolute(spec)
        known = path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise ProducerConfigError(f"SOURCE={spec!r} is no path ({error}): check it") from None
    close = get_close_matches(word.lower(), ("live", "synthetic"), n=1, cutoff=0.7)
    if not known and close and "/" not in word:
        raise ProducerConfigError(f"SOURCE={word} is no file: did you mean {close[0]}?")
    return path


def read_cursor(source: Source, settings: ProducerSettings) -> Cursor | None:
    """How far the source has been read; None if never.

    Raises:
        KafkaError: the cluster cannot be read.
    """
    return sink.read_cursor(settings.bootstrap_servers, source.identity)


@contextmanager
def served(source: Source, settings: ProducerSettings, speed: float = 0.0) -> Iterator[str]:
    """Run the project's server for a source in a child process; yields its URL. A live source needs none and gives its own.

    Args:
        source: what to serve.
        settings: for the child's environment.
        speed: 1 as recorded, N times as fast, 0 as fast as the producer reads.

    Raises:
        SourceError: the server did not start.
    """
    if source.url is not None:
        yield source.url
        return
    command = module_command("producer.eventstreams", *source.serve, "--speed", str(speed))
    with _child(command, settings, stdout=subprocess.PIPE) as server:
        first = server.stdout.readline() if server.stdout else ""
        if not first:
            raise SourceError("the local EventStreams server did not start: see its message above")
        yield json.loads(first)["url"]


def run_producer(
    source: Source, settings: ProducerSettings, *, speed: float = 0.0, max_events: int | None = None
) -> dict[str, Any]:
    """Feed a source to Kafka in child processes until its end or ``max_events``, and return ``pipeline.Report.as_dict()``.

    Args:
        source: from ``source_from``.
        settings: for both children.
        speed: see ``served``.
        max_events: needed for a live stream, which has no end.

    Raises:
        ProducerError: the producer ended with an error; it has said which on stderr.
    """
    with served(source, settings, speed) as url:
        command = producer_command(source, url, max_events=max_events)
        with _child(command, settings, stdout=subprocess.PIPE) as child:
            output, _ = child.communicate()
    lines = output.strip().splitlines()
    if child.returncode != 0 or not lines:
        raise ProducerError(f"the producer ended with exit code {child.returncode}: see its message above")
    report: dict[str, Any] = json.loads(lines[-1])
    return report


def producer_command(source: Source, url: str, *, max_events: int | None = None) -> list[str]:
    """The command line of a producer on this source."""
    command = module_command("producer", "--url", url, "--source-id", source.identity, "--mode", source.mode)
    if source.mode != "live":
        command.append("--until-end")
    if max_events is not None:
        command += ["--max-events", str(max_events)]
    return command


@contextmanager
def _child(command: list[str], settings: ProducerSettings, stdout: int) -> Iterator[subprocess.Popen[str]]:
    """A child process that does not outlive the ``with`` block."""
    with ExitStack() as stack:
        child = stack.enter_context(
            subprocess.Popen(command, env=child_environment(settings), stdout=stdout, text=True)  # its stderr is ours
        )
        try:
            yield child
        finally:
            child.terminate()
            try:
                child.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()


def _generator_arguments(generator: Generator) -> tuple[str, ...]:
    return (
        *("--source", "synthetic", "--seed", str(generator.seed), "--events", str(generator.events)),
        *("--start", generator.start.isoformat(), "--hours", repr(generator.hours)),
        *("--followed-share", repr(generator.followed_share), "--redelivered", repr(generator.redelivered)),
        *("--malformed", repr(generator.malformed), "--canary", repr(generator.canary)),
        *("--oversized-bytes", str(generator.oversized_bytes)),
        *(("--continuous",) if generator.continuous else ()),
    )
