"""The ways out: a file on this machine, Slack, e-mail, SNS. Each sends one notice within seconds or says that it could not.

A webhook's URL and a password are secrets: no error text of a library passes through here, because they like to quote the URL.
"""

import json
import logging
import smtplib
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from wikistream_assets.alerts.notice import Event, Notice
from wikistream_assets.exceptions import ChannelDownError, DeliveryError, NoticeRefusedError
from wikistream_assets.machine.files import replace_whole
from wikistream_assets.settings import ALERT_CHANNELS, AlertKind, Settings

SEND_SECONDS: Final = 5.0
"""Longest wait for a connection, and for each answer."""

_LOG_BYTES: Final = 10 * 1024 * 1024
"""``alerts.jsonl`` is moved to ``alerts.jsonl.1`` when it has grown so large."""

_SLACK_TITLE: Final = 150
_SLACK_TEXT: Final = 2_900
_SNS_SUBJECT: Final = 100
_SNS_BYTES: Final = 200_000
_SMTP_REFUSED: Final = 500
_REQUEST_TIMEOUT: Final = 408
_TOO_MANY: Final = 429
_CLIENT_ERROR: Final = 400
_SERVER_ERROR: Final = 500

_log: Final = logging.getLogger("wikistream_assets.alerts")


class Channel(Protocol):
    """One way to tell people."""

    def send(self, notice: Notice) -> None:
        """Send ``notice``; returns when it has been accepted.

        Raises:
            ChannelDownError: nothing can be sent now; try again later.
            NoticeRefusedError: this notice is not accepted; others may be.
        """


def send(name: str, channel: Channel, notice: Notice) -> None:
    """Send ``notice`` on the channel called ``name``; whatever goes wrong in it concerns this channel alone.

    Raises:
        ChannelDownError: nothing can be sent now; so is what nobody foresaw, as a password that the library cannot encode. It is
            told by its class, for its text may quote a secret.
        NoticeRefusedError: this notice is not accepted; others may be.
    """
    try:
        channel.send(notice)
    except DeliveryError:
        raise
    except Exception as error:
        raise ChannelDownError(f"{name} does not work: unexpected {type(error).__name__}") from None


class LogChannel:
    """A line in the log of this process, and one JSON line in ``logs/alerts.jsonl``."""

    def __init__(self, settings: Settings) -> None:
        self._path = settings.root / "logs" / "alerts.jsonl"
        self._moved = self._path.with_name(f"{self._path.name}.1")

    def send(self, notice: Notice) -> None:
        line = notice.as_json()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if self._path.exists() and self._path.stat().st_size > _LOG_BYTES:
                self._path.replace(self._moved)
            with self._path.open("a", encoding="ascii") as file:
                file.write(line + "\n")
        except OSError as error:
            raise ChannelDownError(f"{self._path} cannot be written ({error.strerror})") from None
        level = logging.INFO if notice.event is Event.CLEARED else logging.getLevelName(notice.severity)
        _log.log(level, "%s", f"{notice.title}: {notice.text}".splitlines()[0])

    def forget(self, before: str, *, dry_run: bool = False) -> int:
        """Delete what was said before the UTC day ``before`` (yyyy-MM-dd), and of users' days before it.

        Nobody may write meanwhile.

        Returns:
            How many lines.
        """
        forgotten = 0
        for path in filter(Path.exists, (self._moved, self._path)):
            kept, old = _parted(path.read_text(encoding="ascii").splitlines(keepends=True), before)
            forgotten += len(old)
            if old and not dry_run:
                mode = path.stat().st_mode
                replace_whole(path, "".join(kept).encode("ascii"))
                path.chmod(mode)
        return forgotten


def _parted(lines: list[str], before: str) -> tuple[list[str], list[str]]:
    """The lines that stay and those that are too old; one that was cut short is as old as the one in front of it."""
    kept: list[str] = []
    old: list[str] = []
    at = ""
    for line in lines:
        with suppress(ValueError):
            notice = json.loads(line)
            at = notice["at"]
            if notice.get("kind") == AlertKind.HIGH_RISK_USER:
                at = min(at, notice["subject"])
        (old if at < before else kept).append(line)
    return kept, old


class SlackChannel:
    """A Slack incoming webhook. Everything from outside is plain text: no markup, no mention, no link of a stranger's."""

    def __init__(self, url: str) -> None:
        self._url = url

    def send(self, notice: Notice) -> None:
        import requests  # the commands' help must not wait for it

        try:
            # A webhook never redirects; following would hand the notice to someone else.
            answer = requests.post(
                self._url, json=_slack_message(notice), timeout=SEND_SECONDS, allow_redirects=False, stream=True
            )
            answer.close()  # its body says nothing that the status does not
        except requests.RequestException as error:
            raise ChannelDownError(f"Slack at {urlsplit(self._url).hostname}: {type(error).__name__}") from None
        if answer.ok and answer.status_code < 300:
            return
        problem = f"Slack at {urlsplit(self._url).hostname} answered {answer.status_code}"
        if answer.status_code in (_REQUEST_TIMEOUT, _TOO_MANY) or answer.status_code >= _SERVER_ERROR:
            raise ChannelDownError(problem, _seconds(answer.headers.get("Retry-After")))
        raise NoticeRefusedError(problem)


class EmailChannel:
    """Plain-text mail over SMTP; with STARTTLS unless it is turned off."""

    def __init__(self, host: str, settings: Settings) -> None:
        self._host = host
        self._settings = settings

    def send(self, notice: Notice) -> None:
        mine = self._settings
        message = EmailMessage()
        message["Subject"] = f"[WikiStream] {notice.title}"
        message["From"] = mine.alert_email_from
        message["To"] = mine.alert_email_to
        message["Date"] = formatdate()
        message["Message-ID"] = make_msgid(domain="wikistream.invalid")
        message.set_content(notice.text + "\n")
        place = f"the mail server {self._host}:{mine.alert_smtp_port}"
        try:
            with smtplib.SMTP(
                self._host, mine.alert_smtp_port, local_hostname=_mail_name(), timeout=SEND_SECONDS
            ) as server:
                if mine.alert_smtp_starttls:
                    server.starttls(context=ssl.create_default_context())
                if mine.alert_smtp_user and mine.alert_smtp_password:
                    server.login(mine.alert_smtp_user, mine.alert_smtp_password.get_secret_value())
                server.send_message(message)
        except (smtplib.SMTPRecipientsRefused, smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as error:
            code = _smtp_code(error)
            if code >= _SMTP_REFUSED:
                raise NoticeRefusedError(f"{place} refused the mail ({code})") from None
            raise ChannelDownError(f"{place} does not take mail now ({code})") from None
        except (OSError, smtplib.SMTPException) as error:
            raise ChannelDownError(f"{place}: {type(error).__name__}") from None


class SnsChannel:
    """Amazon SNS; credentials as boto3 finds them."""

    def __init__(self, topic_arn: str, endpoint_url: str | None) -> None:
        self._topic_arn = topic_arn
        self._endpoint_url = endpoint_url

    def send(self, notice: Notice) -> None:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            client = boto3.client(
                "sns",
                region_name=self._topic_arn.split(":")[3],
                endpoint_url=self._endpoint_url,
                config=Config(
                    connect_timeout=SEND_SECONDS, read_timeout=SEND_SECONDS, retries={"total_max_attempts": 1}
                ),
            )
            client.publish(
                TopicArn=self._topic_arn,
                Subject=_ascii_line(notice.title)[:_SNS_SUBJECT],
                Message=f"{notice.title}\n{notice.text}".encode()[:_SNS_BYTES].decode(errors="ignore"),
                MessageAttributes={
                    name: {"DataType": "String", "StringValue": value}
                    for name, value in (
                        ("event", str(notice.event)),
                        ("kind", notice.kind),
                        ("severity", notice.severity),
                    )
                },
            )
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", _SERVER_ERROR)
            code = error.response.get("Error", {}).get("Code", "unknown")
            problem = f"SNS answered {status} {_ascii_line(str(code))}"
            if status >= _SERVER_ERROR or status == _TOO_MANY or code in ("Throttling", "ThrottledException"):
                raise ChannelDownError(problem) from None
            raise NoticeRefusedError(problem) from None
        except BotoCoreError as error:
            raise ChannelDownError(f"SNS: {type(error).__name__}") from None


def routed_channels(settings: Settings) -> Mapping[str, Channel]:
    """The channels that some route of ``settings`` names, ``log`` first."""
    made: dict[str, Channel] = {}
    routed = {name for names in settings.alert_routes.values() for name in names}
    for name in sorted(routed, key=ALERT_CHANNELS.index):
        match name:
            case "log":
                made[name] = LogChannel(settings)
            case "slack" if settings.alert_slack_webhook_url:
                made[name] = SlackChannel(settings.alert_slack_webhook_url.get_secret_value())
            case "email" if settings.alert_smtp_host:
                made[name] = EmailChannel(settings.alert_smtp_host, settings)
            case "sns" if settings.alert_sns_topic_arn:
                made[name] = SnsChannel(settings.alert_sns_topic_arn, settings.alert_sns_endpoint_url)
    return made


def _slack_message(notice: Notice) -> dict[str, Any]:
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": _slack_plain(notice.title, _SLACK_TITLE)},
        {"type": "section", "text": _slack_plain(notice.text, _SLACK_TEXT)},
    ]
    if notice.url:
        link = {"type": "mrkdwn", "text": f"<{notice.url}|open the run>", "verbatim": True}
        blocks.append({"type": "context", "elements": [link]})
    # What a phone shows. It is read as markup, in which these three characters are the only ones that can start anything.
    text = notice.title.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return {"text": text, "mrkdwn": False, "link_names": False, "unfurl_links": False, "blocks": blocks}


def _slack_plain(text: str, most: int) -> dict[str, Any]:
    return {"type": "plain_text", "emoji": False, "text": text if len(text) <= most else text[: most - 1] + "…"}


def _smtp_code(error: smtplib.SMTPException) -> int:
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return max(code for code, _ in error.recipients.values())
    return int(getattr(error, "smtp_code", 0))


def _mail_name() -> str:
    # smtplib's own default asks the name server for this machine's full name, which may take its time.
    return f"[{socket.gethostbyname('localhost')}]"


def _seconds(header: str | None) -> float:
    with suppress(TypeError, ValueError):
        return max(0.0, float(header))  # type: ignore[arg-type]  # None is a TypeError
    return 0.0


def _ascii_line(text: str) -> str:
    return json.dumps(text)[1:-1].replace('\\"', '"')
