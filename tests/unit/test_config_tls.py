"""The `http.tls` section: what is demanded of clients, and what cannot be."""

from pathlib import Path

import pytest
import yaml

from server.config import ConfigError, load, to_yaml
from server.config_render import render
from server.settings import ClientAuth, ServerSettings
from server.tls_ciphers import SUITES, TLS_13_SUITES, openssl_names
from tests.fakes.authority import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def load_tls(path: Path, section: dict[str, object]) -> ServerSettings:
    file = path / "config.yml"
    file.write_text(yaml.safe_dump({"version": 0.1, "http": {"tls": section}}))
    return load(file, {"HOME": str(path)})


def find_problems(path: Path, section: dict[str, object]) -> list[tuple[str, str, str]]:
    with pytest.raises(ConfigError) as raised:
        load_tls(path, section)
    return [(each.key_path, each.found, each.expected) for each in raised.value.problems]


def test_what_is_written_is_read_back(authority: Authority, tmp_path: Path) -> None:
    pair = authority.issue("mirror")
    section = pair.section(
        clientcas=[str(authority.path)],
        clientauth="verify-client-cert-if-given",
        minimumtls="tls1.2",
        ciphersuites=["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"],
    )
    settings = load_tls(tmp_path, section)
    assert settings.http.tls == pair.settings(
        clientcas=(str(authority.path),),
        clientauth=ClientAuth.VERIFY_IF_GIVEN,
        ciphersuites=("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"),
    )
    (tmp_path / "again.yml").write_text(to_yaml(render(settings)))
    assert load(tmp_path / "again.yml", {}).http.tls == settings.http.tls


def test_authorities_alone_demand_a_certificate(authority: Authority, tmp_path: Path) -> None:
    section = authority.issue("mirror").section(clientcas=str(authority.path))
    tls = load_tls(tmp_path, section).http.tls
    assert tls is not None
    assert tls.clientauth is ClientAuth.REQUIRE_AND_VERIFY


@pytest.mark.parametrize(
    ("others", "key", "part"),
    [
        ({"minimumtls": "tls1.1"}, "minimumtls", "one of tls1.2, tls1.3"),
        ({"ciphersuites": ["TLS_RSA_WITH_RC4_128_SHA"]}, "ciphersuites", "3DES is not offered"),
        ({"ciphersuites": ["TLS_RSA_WITH_3DES_EDE_CBC_SHA"]}, "ciphersuites", "one of TLS_"),
        ({"clientauth": "sometimes"}, "clientauth", "one of request-client-cert, verify-"),
        ({"clientauth": "require-any-client-cert"}, "clientauth", "require-and-verify"),
        ({"clientauth": "require-and-verify-client-cert"}, "clientcas", "the CAs by which"),
        ({"clientcas": ["/nowhere/ca.pem"]}, "clientcas", "a readable file"),
        ({"key": ""}, "key", "the path of the certificate's private key"),
        ({"key": "/nowhere/key.pem"}, "key", "a readable file"),
        ({"certificate": "/nowhere/c.pem"}, "certificate", "a readable file"),
        ({"letsencrypt": {"cachefile": "/c"}}, "letsencrypt", "ACME client"),
    ],
)
def test_what_cannot_be_had_is_a_problem(
    authority: Authority, tmp_path: Path, others: dict[str, object], key: str, part: str
) -> None:
    section = authority.issue("mirror").section() | others
    ((found_key, _, expected),) = find_problems(tmp_path, section)
    assert found_key == f"http.tls.{key}"
    assert part in expected


def test_a_certificate_that_nobody_verifies_is_not_asked_for(
    authority: Authority, tmp_path: Path
) -> None:
    section = authority.issue("mirror").section(clientauth="request-client-cert")
    settings = load_tls(tmp_path, section)
    assert any("no certificate is asked for" in warning for warning in settings.warnings)


def test_what_needs_a_certificate_says_so_without_one(tmp_path: Path) -> None:
    settings = load_tls(tmp_path, {"clientcas": ["/ca.pem"], "minimumtls": "tls1.3"})
    assert settings.http.tls is None
    idle = [warning for warning in settings.warnings if "this is plain HTTP" in warning]
    assert len(idle) == 2


def test_suites_cannot_be_chosen_among_in_tls_1_3(authority: Authority, tmp_path: Path) -> None:
    section = authority.issue("mirror").section(
        minimumtls="tls1.3", ciphersuites=["TLS_AES_128_GCM_SHA256"]
    )
    warnings = load_tls(tmp_path, section).warnings
    assert any("http.tls.ciphersuites: not used" in warning for warning in warnings)


def test_suites_keep_their_order() -> None:
    chosen = tuple(reversed(SUITES))
    assert openssl_names(chosen) == ":".join(reversed(SUITES.values()))
    assert openssl_names(TLS_13_SUITES) == ""
    assert "CHACHA20" in openssl_names(())
