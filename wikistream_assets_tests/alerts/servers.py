"""Loopback servers that take what the channels send: HTTP for Slack's webhook and SNS's Query protocol, and SMTP."""

import socketserver
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SNS_ANSWER = (
    '<PublishResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><PublishResult><MessageId>m</MessageId>'
    "</PublishResult></PublishResponse>"
)


@dataclass
class Inbox:
    """What a server has received, and how it answers.

    Attributes:
        bodies: HTTP request bodies.
        mails: parsed mails.
        status / headers / answer: of each HTTP response.
        refuse: SMTP code with which a recipient is refused; 0 takes the mail.
        conversation: SMTP command lines, as received.
    """

    port: int = 0
    bodies: list[str] = field(default_factory=list)
    mails: list[EmailMessage] = field(default_factory=list)
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    answer: str = "ok"
    refuse: int = 0
    conversation: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def http_server(port: int = 0) -> Iterator[Inbox]:
    """An HTTP server on ``port``, or on a free one."""
    inbox = Inbox()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            inbox.bodies.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(inbox.status)
            for name, value in inbox.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(inbox.answer)))
            self.end_headers()
            self.wfile.write(inbox.answer.encode())

        def log_message(self, *_: object) -> None:
            pass

    with _serving(ThreadingHTTPServer(("127.0.0.1", port), Handler), inbox):
        yield inbox


@contextmanager
def smtp_server(certificate: Path | None = None) -> Iterator[Inbox]:
    """A mail server that takes any login; with a certificate (and its key in the same file) it offers STARTTLS."""
    inbox = Inbox()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    if certificate:
        tls.load_cert_chain(certificate)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self._say("220 test")
            while line := self.rfile.readline().decode().strip():
                inbox.conversation.append(line)
                verb = line.split(" ")[0].upper()
                if verb == "EHLO":
                    self._say("250-test", *(["250-STARTTLS"] if certificate else []), "250 AUTH PLAIN")
                elif verb == "STARTTLS":
                    self._say("220 go on")
                    if not self._encrypt():
                        return
                elif verb == "AUTH":
                    self._say("235 ok")
                elif verb == "RCPT" and inbox.refuse:
                    self._say(f"{inbox.refuse} no")
                elif verb == "DATA":
                    self._say("354 go on")
                    inbox.mails.append(self._mail())
                    self._say("250 taken")
                elif verb == "QUIT":
                    self._say("221 bye")
                    return
                else:
                    self._say("250 ok")

        def _encrypt(self) -> bool:
            try:
                self.request = tls.wrap_socket(self.request, server_side=True)
            except (ssl.SSLError, ConnectionError):
                return False  # the client does not trust the certificate
            self.rfile, self.wfile = self.request.makefile("rb"), self.request.makefile("wb", 0)
            inbox.conversation.append("(encrypted)")
            return True

        def finish(self) -> None:
            self.request.close()  # the encrypted one is not the one that the server closes
            super().finish()

        def _mail(self) -> EmailMessage:
            lines = []
            while (line := self.rfile.readline()) not in (b".\r\n", b""):
                lines.append(line[1:] if line.startswith(b".") else line)
            return message_from_bytes(b"".join(lines), policy=default)  # type: ignore[return-value]  # by the policy

        def _say(self, *lines: str) -> None:
            self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())

    with _serving(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler), inbox):
        yield inbox


@contextmanager
def _serving(server: socketserver.TCPServer, inbox: Inbox) -> Iterator[None]:
    inbox.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
