"""Channels against real servers on loopback: what arrives, what hostile text becomes, what is never shown."""

import getpass
import json
import logging
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from wikistream_assets.alerts import Alert, AlertKind, Alerts, channels
from wikistream_assets.exceptions import ConfigurationError
from wikistream_assets.settings import Settings, load_settings
from wikistream_assets_tests.alerts.servers import SNS_ANSWER, Inbox, http_server, smtp_server
from wikistream_assets_tests.cli.runner import wikistream
from wikistream_assets_tests.conftest import SettingsFactory, free_port

pytestmark = pytest.mark.local

RUN = "6a7c51ae-0b1c-4a52-8a52-3e2d0f3a6a11"
HOSTILE = Alert(
    AlertKind.CHECK_FAILED,
    "silver.cleaned_events.<!channel>",
    "title <http://evil.example|click> & *bold*\r\nBcc: all@example.org\x1b[2J\u202e",
    {"records_failed": 3, "metric": 0.25, "failing_keys": [f"key{number}" for number in range(100)]},
    RUN,
)
ARN = "arn:aws:sns:eu-central-1:123456789012:alerts"


@pytest.fixture
def http() -> Iterator[Inbox]:
    with http_server() as inbox:
        yield inbox


@pytest.fixture
def mail() -> Iterator[Inbox]:
    with smtp_server() as inbox:
        yield inbox


def test_slack(settings_factory: SettingsFactory, http: Inbox) -> None:
    settings = settings_factory(alert_routes={"*": ("slack",)}, alert_slack_webhook_url=f"{http.url}/services/T/B/x")
    alerts = Alerts(settings)
    alerts.fire(HOSTILE)
    assert alerts.deliver().sent == {"slack": 1}
    message = json.loads(http.bodies[0])
    assert message["text"] == "[ERROR] FIRED check_failed: silver.cleaned_events.&lt;!channel&gt;"
    header, section, context = message["blocks"]
    assert (header["text"]["type"], section["text"]["type"]) == ("plain_text", "plain_text"), "nothing of it is markup"
    lines = section["text"]["text"].splitlines()
    assert lines[:5] == [
        "title <http://evil.example|click> & *bold*\\r\\nBcc: all@example.org\\x1b[2J\\u202e",
        "records_failed: 3",
        "metric: 0.25",
        f"failing_keys: {', '.join(f'key{number}' for number in range(10))} and 90 more",
        f"run: http://127.0.0.1:{settings.dagster_port}/runs/{RUN}",
    ]
    assert context["elements"][0]["text"] == f"<http://127.0.0.1:{settings.dagster_port}/runs/{RUN}|open the run>"


def test_long_texts_are_cut_to_what_slack_takes(settings_factory: SettingsFactory, http: Inbox) -> None:
    alerts = Alerts(settings_factory(alert_routes={"*": ("slack",)}, alert_slack_webhook_url=http.url))
    alerts.fire(Alert("lag", "t" * 10_000, "m" * 10_000, {f"figure{n}" * 1000: "v" * 10_000 for n in range(100)}))
    alerts.deliver()
    header, section = json.loads(http.bodies[0])["blocks"]
    assert len(header["text"]["text"]) <= 150
    assert len(section["text"]["text"]) <= 3000


def test_email(settings_factory: SettingsFactory, mail: Inbox) -> None:
    settings = settings_factory(
        alert_routes={"*": ("email",)},
        alert_email_to="ops@example.org, second@example.org",
        alert_smtp_host="127.0.0.1",
        alert_smtp_port=mail.port,
        alert_smtp_starttls=False,
        alert_smtp_user="me",
        alert_smtp_password="very secret",  # pragma: allowlist secret
    )
    alerts = Alerts(settings)
    alerts.fire(HOSTILE)
    alerts.clear(AlertKind.CHECK_FAILED, HOSTILE.subject, "it passed")
    assert alerts.deliver().sent == {"email": 2}
    fired, cleared = mail.mails
    assert fired["Subject"].strip() == "[WikiStream] [ERROR] FIRED check_failed: silver.cleaned_events.<!channel>"
    assert fired["To"] == "ops@example.org, second@example.org"
    assert fired["Bcc"] is None
    assert fired.get_content_type() == "text/plain"
    assert f"run: http://127.0.0.1:{settings.dagster_port}/runs/{RUN}" in fired.get_content()
    assert cleared["Subject"].strip().startswith("[WikiStream] [OK] CLEARED")
    recipients = [line for line in mail.conversation if line.lower().startswith("rcpt")]
    assert len(recipients) == 4
    assert any(line.startswith("AUTH PLAIN") for line in mail.conversation)


def test_mail_waits_for_a_server_that_cannot_encrypt(settings_factory: SettingsFactory, mail: Inbox) -> None:
    alerts = Alerts(
        settings_factory(
            alert_routes={"*": ("email",)},
            alert_email_to="ops@example.org",
            alert_smtp_host="127.0.0.1",
            alert_smtp_port=mail.port,
            alert_smtp_user="me",
            alert_smtp_password="very secret",  # pragma: allowlist secret
        )
    )
    alerts.fire(HOSTILE)
    delivery = alerts.deliver()
    assert delivery.problems == [f"the mail server 127.0.0.1:{mail.port}: SMTPNotSupportedError"]
    assert delivery.waiting == {"email": 1}
    assert not any(line.startswith(("AUTH", "DATA", "MAIL")) for line in mail.conversation), "nothing in the clear"


def test_mail_is_encrypted_and_only_for_a_server_that_is_trusted(
    settings_factory: SettingsFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = tmp_path / "server.pem"
    request = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost")
    places = ("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(certificate), "-out", str(tmp_path / "c"))
    subprocess.run([*request, *places], check=True, capture_output=True)
    certificate.write_text(certificate.read_text() + (tmp_path / "c").read_text())
    now = [1_800_000_000.0]
    with smtp_server(certificate) as server:
        settings = settings_factory(
            alert_routes={"*": ("email",)},
            alert_email_to="ops@example.org",
            alert_smtp_host="127.0.0.1",
            alert_smtp_port=server.port,
            alert_smtp_user="me",
            alert_smtp_password="very secret",  # pragma: allowlist secret
        )
        alerts = Alerts(settings, lambda: now[0])
        alerts.fire(HOSTILE)
        problem = f"the mail server 127.0.0.1:{server.port}: SSLCertVerificationError"
        assert alerts.deliver().problems == [problem]
        assert [line.split()[0].upper() for line in server.conversation] == ["EHLO", "STARTTLS"]
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        now[0] += 60
        assert alerts.deliver().sent == {"email": 1}
        verbs = [line.split()[0].upper() for line in server.conversation[2:]]
        assert verbs[:5] == ["EHLO", "STARTTLS", "(ENCRYPTED)", "EHLO", "AUTH"]


def test_a_server_that_never_answers_does_not_hold_up_the_others(
    settings_factory: SettingsFactory, mail: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "SEND_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, says nothing
        settings = settings_factory(
            alert_routes={"*": ("slack", "email")},
            alert_slack_webhook_url=f"http://127.0.0.1:{silent.getsockname()[1]}/services/x",
            alert_email_to="ops@example.org",
            alert_smtp_host="127.0.0.1",
            alert_smtp_port=mail.port,
            alert_smtp_starttls=False,
        )
        alerts = Alerts(settings)
        alerts.fire(HOSTILE)
        delivery = alerts.deliver()
    assert delivery.problems == ["Slack at 127.0.0.1: ReadTimeout"]
    assert (delivery.sent, delivery.waiting) == ({"email": 1}, {"slack": 1})


def test_a_channel_that_breaks_as_nobody_foresaw_is_down_and_the_others_get_theirs(
    settings_factory: SettingsFactory,
    http: Inbox,
    mail: Inbox,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    settings = settings_factory(
        alert_routes={"*": ("slack", "email", "sns")},
        alert_slack_webhook_url=http.url,
        alert_email_to="ops@example.org",
        alert_smtp_host="127.0.0.1",
        alert_smtp_port=mail.port,
        alert_smtp_starttls=False,
        alert_smtp_user="me",
        alert_smtp_password="topsecret-\N{SNOWMAN}",  # pragma: allowlist secret
        alert_sns_topic_arn=ARN,
        alert_sns_endpoint_url="no address, topsecret",
    )
    alerts = Alerts(settings)
    alerts.fire(HOSTILE)
    delivery = alerts.deliver()
    down = {
        "email": "email does not work: unexpected UnicodeEncodeError",
        "sns": "sns does not work: unexpected ValueError",
    }
    assert sorted(delivery.problems) == sorted(down.values())
    assert (delivery.sent, delivery.waiting) == ({"slack": 1}, {"email": 1, "sns": 1})
    states = alerts.channel_states()
    for name, problem in down.items():
        assert (states[name].failures, states[name].error) == (1, problem), "it is left alone for a while"
        assert f"alerts: {problem}; tried again in" in caplog.text
    assert "topsecret" not in caplog.text
    variables = {
        "WIKISTREAM_ALERT_SLACK_WEBHOOK_URL": http.url,
        "WIKISTREAM_ALERT_SMTP_PASSWORD": "topsecret-\N{SNOWMAN}",  # pragma: allowlist secret
    }
    tried = wikistream("alerts", "test", "email", settings=settings, **variables)
    assert (tried.returncode, tried.stderr) == (1, f"error: email: {down['email']}\n")


@pytest.mark.parametrize(("code", "problem"), [(450, "does not take mail now (450)"), (550, "refused the mail (550)")])
def test_mail_that_is_not_taken_waits(settings_factory: SettingsFactory, mail: Inbox, code: int, problem: str) -> None:
    mail.refuse = code
    alerts = Alerts(
        settings_factory(
            alert_routes={"*": ("email",)},
            alert_email_to="ops@example.org",
            alert_smtp_host="127.0.0.1",
            alert_smtp_port=mail.port,
            alert_smtp_starttls=False,
        )
    )
    alerts.fire(HOSTILE)
    delivery = alerts.deliver()
    assert delivery.problems == [f"the mail server 127.0.0.1:{mail.port} {problem}"]
    assert delivery.waiting == {"email": 1}
    assert alerts.channel_states()["email"].failures == (1 if code < 500 else 0)


def test_sns(settings_factory: SettingsFactory, http: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    http.answer = SNS_ANSWER
    settings = settings_factory(alert_routes={"*": ("sns",)}, alert_sns_topic_arn=ARN, alert_sns_endpoint_url=http.url)
    alerts = Alerts(settings)
    alerts.fire(HOSTILE)
    assert alerts.deliver().sent == {"sns": 1}
    form = {name: values[0] for name, values in parse_qs(http.bodies[0]).items()}
    assert (form["Action"], form["TopicArn"]) == ("Publish", ARN)
    assert form["Subject"] == "[ERROR] FIRED check_failed: silver.cleaned_events.<!channel>"
    assert f"run: http://127.0.0.1:{settings.dagster_port}/runs/{RUN}" in form["Message"]
    attributes = {
        form[f"MessageAttributes.entry.{n}.Name"]: form[f"MessageAttributes.entry.{n}.Value.StringValue"]
        for n in (1, 2, 3)
    }
    assert attributes == {"event": "fired", "kind": "check_failed", "severity": "ERROR"}
    http.status = 503
    alerts.fire(Alert("lag", "topic", "m"))
    assert alerts.deliver().waiting == {"sns": 1}
    assert alerts.channel_states()["sns"].failures == 1


def test_secrets_are_in_no_log_no_file_and_no_error(
    settings_factory: SettingsFactory, http: Inbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    settings = settings_factory(
        alert_routes={"*": ("log", "slack", "email")},
        alert_slack_webhook_url=f"http://127.0.0.1:{free_port()}/services/T0/B0/topsecret",
        alert_email_to="ops@example.org",
        alert_smtp_host="127.0.0.1",
        alert_smtp_port=free_port(),
        alert_smtp_user="me",
        alert_smtp_password="topsecret",  # pragma: allowlist secret
    )
    alerts = Alerts(settings)
    alerts.fire(HOSTILE)
    delivery = alerts.deliver()
    assert len(delivery.problems) == 2
    written = [path.read_bytes() for path in settings.root.rglob("*") if path.is_file()]
    for text in (caplog.text, repr(settings), str(settings), repr(delivery), repr(alerts.channel_states())):
        assert "topsecret" not in text
    assert not any(b"topsecret" in content for content in written)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"ROUTES": "{"}, r"WIKISTREAM_ALERT_ROUTES: is not JSON: write for example"),
        (
            {"ROUTES": '{"gate_faild": ["log"]}'},
            "WIKISTREAM_ALERT_ROUTES: unknown kind 'gate_faild': choose from .*gate_failed",
        ),
        ({"ROUTES": '{"*": ["pager"]}'}, "WIKISTREAM_ALERT_ROUTES: unknown channel 'pager': choose from log, slack"),
        ({"ROUTES": '{"*": ["slack"]}'}, "names slack, which needs WIKISTREAM_ALERT_SLACK_WEBHOOK_URL: set it"),
        ({"ROUTES": '{"*": ["email"]}', "EMAIL_TO": "a@b.c"}, "names email, which needs WIKISTREAM_ALERT_SMTP_HOST"),
        ({"ROUTES": '{"*": ["sns"]}'}, "names sns, which needs WIKISTREAM_ALERT_SNS_TOPIC_ARN"),
        ({"SLACK_WEBHOOK_URL": "http://hooks.example.org/topsecret"}, "SLACK_WEBHOOK_URL: must be an https:// URL"),
        (
            {
                "SMTP_HOST": "mail.example.org",
                "SMTP_PASSWORD": "topsecret",  # pragma: allowlist secret
                "SMTP_STARTTLS": "0",
            },  # pragma: allowlist secret
            "WIKISTREAM_ALERT_SMTP_PASSWORD would travel in the clear",
        ),
    ],
)
def test_wrong_settings_are_one_line_without_secrets(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"WIKISTREAM_ALERT_{name}", value)
    with pytest.raises(ConfigurationError, match=message) as error:
        load_settings()
    assert "topsecret" not in str(error.value)
    assert "\n" not in str(error.value)


def test_an_alert_is_closed_by_hand(settings: Settings) -> None:
    alerts = Alerts(settings)
    for job in ("backfill", "cycle"):
        alerts.fire(Alert(AlertKind.RUN_FAILED, job, f"{job} failed"))
    closed = wikistream("alerts", "clear", "run_failed", "backfill", settings=settings)
    assert (closed.returncode, closed.stdout) == (0, "closed run_failed backfill\n"), closed.stderr
    assert [opened.notice.subject for opened in alerts.open_alerts()] == ["cycle"]
    last = json.loads((settings.root / "logs" / "alerts.jsonl").read_text().splitlines()[-1])
    told = f"closed by hand, by {getpass.getuser()}"
    assert (last["event"], last["subject"], last["message"]) == ("cleared", "backfill", told)
    again = wikistream("alerts", "clear", "run_failed", "backfill", settings=settings)
    missing = "error: run_failed backfill is not open: 'wikistream alerts list' shows what is\n"
    assert (again.returncode, again.stdout, again.stderr) == (4, "", missing)
    unknown = wikistream("alerts", "clear", "run_faild", "backfill", settings=settings)
    assert (unknown.returncode, unknown.stderr.count("\n")) == (2, 1)
    assert "run_failed" in unknown.stderr


def test_commands(settings_factory: SettingsFactory, http: Inbox) -> None:
    url = f"{http.url}/topsecret"
    settings = settings_factory(alert_routes={"lag": ("log", "slack")}, alert_slack_webhook_url=url)
    own = {"WIKISTREAM_ALERT_SLACK_WEBHOOK_URL": url}
    nothing = wikistream("alerts", "list", settings=settings, **own)
    assert (nothing.returncode, nothing.stdout) == (0, "nothing is open\n"), nothing.stderr
    Alerts(settings).fire(Alert("lag", "raw-events\x1b[2J", "12,000 records wait"))
    listed = wikistream("alerts", "list", settings=settings, **own)
    assert listed.returncode == 3
    assert "12,000 records wait" in listed.stdout
    assert "\x1b" not in listed.stdout
    assert "1 in the outbox of slack" in listed.stdout
    delivered = wikistream("alerts", "deliver", settings=settings, **own)
    assert (delivered.returncode, delivered.stdout) == (0, "slack: sent 1\n")
    tested = wikistream("alerts", "test", settings=settings, **own)
    assert (tested.returncode, tested.stdout) == (0, "log: taken\nslack: taken\n"), tested.stderr
    assert len(http.bodies) == 2
    http.status = 404
    refused = wikistream("alerts", "test", "slack", settings=settings, **own)
    assert (refused.returncode, refused.stderr) == (1, "error: slack: Slack at 127.0.0.1 answered 404\n")
    unknown = wikistream("alerts", "test", "sns", settings=settings, **own)
    assert (unknown.returncode, unknown.stderr.count("\n")) == (2, 1)
