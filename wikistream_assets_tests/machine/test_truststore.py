"""The trust store made from a PEM bundle, read back by Java's own keytool."""

import re
import subprocess
from pathlib import Path

import pytest

from wikistream_assets.machine.java import find_java
from wikistream_assets.machine.truststore import BUNDLE_VARIABLES, jks_from_pem, trust_options

pytestmark = pytest.mark.local

_SHA256 = re.compile(r"SHA-?256\)?:? ?([0-9A-F:]{95})")


def keytool(*arguments: str) -> str:
    tool = find_java().home / "bin" / "keytool"
    return subprocess.run([tool, *arguments], capture_output=True, text=True, check=True).stdout


def make_certificate(folder: Path, name: str) -> str:
    """Return the PEM of a new self-signed certificate."""
    common = ("-keystore", str(folder / f"{name}.p12"), "-storepass", "secret", "-alias", name)
    keytool("-genkeypair", "-keyalg", "EC", "-dname", f"CN={name}", *common)
    return keytool("-exportcert", "-rfc", *common)


def test_java_reads_every_certificate_of_the_bundle(tmp_path: Path) -> None:
    certificates = [make_certificate(tmp_path, name) for name in ("first", "second")]
    (tmp_path / "made.jks").write_bytes(jks_from_pem("# a company's bundle\n" + "\n".join(certificates)))
    listed = keytool("-list", "-keystore", str(tmp_path / "made.jks"), "-storepass", "changeit")
    wanted = set()
    for number, certificate in enumerate(certificates):
        (tmp_path / f"{number}.pem").write_text(certificate)
        wanted |= set(_SHA256.findall(keytool("-printcert", "-file", str(tmp_path / f"{number}.pem"))))
    assert len(wanted) == 2
    assert set(_SHA256.findall(listed)) == wanted


def test_the_machines_own_store_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cacerts").touch()
    (tmp_path / "bundle.pem").touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "bundle.pem"))
    assert f"-Djavax.net.ssl.trustStore={tmp_path / 'cacerts'}" in trust_options(tmp_path, tmp_path / "cacerts")


def test_then_the_bundle_that_a_variable_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in BUNDLE_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    assert trust_options(tmp_path, tmp_path / "absent") == []
    monkeypatch.setenv("PIP_CERT", str(tmp_path / "absent.pem"))
    assert trust_options(tmp_path, tmp_path / "absent") == []
    (tmp_path / "bundle.pem").write_text(make_certificate(tmp_path, "company"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "bundle.pem"))
    options = trust_options(tmp_path, tmp_path / "absent")
    assert f"-Djavax.net.ssl.trustStore={tmp_path / 'trust.jks'}" in options
    assert "1 entry" in keytool("-list", "-keystore", str(tmp_path / "trust.jks"), "-storepass", "changeit")
