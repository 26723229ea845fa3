"""What TLS is agreed on with clients, made of the files that the configuration names.

Invariant: a context is whole (certificate and key belong together, every CA was read) or there is
none, but a `PemError`. All of it blocks, on files only.
"""

import ssl
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from engine.pem import PemError, Role, add_authorities, load_pair, read
from server.settings import ClientAuth, TLSSettings
from server.tls_ciphers import openssl_names

# Clients of HTTP/2 go on with HTTP/1.1 (RFC 7301 §3.2): Go's do, which are all there are.
_PROTOCOLS = ["http/1.1"]
_VERIFY_MODES = {
    ClientAuth.NONE: ssl.CERT_NONE,
    ClientAuth.REQUEST: ssl.CERT_NONE,
    ClientAuth.VERIFY_IF_GIVEN: ssl.CERT_OPTIONAL,
    ClientAuth.REQUIRE_AND_VERIFY: ssl.CERT_REQUIRED,
}


@dataclass(frozen=True, slots=True)
class Identity:
    """What the server shows clients: a context for their connections, and how long it is good."""

    context: ssl.SSLContext
    subject: str
    expires_at: datetime  # UTC


def load_identity(settings: TLSSettings) -> Identity:
    """Read all files. Raises `PemError`."""
    certificate = _read_certificate(settings.certificate)
    return Identity(
        context=_make_context(settings),
        subject=certificate.subject.rfc4514_string(),
        expires_at=certificate.not_valid_after_utc,
    )


def _make_context(settings: TLSSettings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ciphers = openssl_names(settings.ciphersuites)
    # Where only TLS 1.3's suites are wanted, nothing is left for 1.2.
    is_modern = settings.minimumtls == "tls1.3" or not ciphers
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if is_modern else ssl.TLSVersion.TLSv1_2
    if ciphers:
        context.set_ciphers(ciphers)
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(_PROTOCOLS)
    load_pair(context, settings.certificate, settings.key)
    for path in settings.clientcas:
        add_authorities(context, path)
    context.verify_mode = _VERIFY_MODES[settings.clientauth]
    return context


def _read_certificate(path: str) -> x509.Certificate:
    """Read the first certificate of a file, the server's own; those of CAs follow it."""
    try:
        return x509.load_pem_x509_certificates(read(Role.CERTIFICATE, path))[0]
    except ValueError as exc:
        expected = "a certificate in PEM, its CAs behind it"
        raise PemError(Role.CERTIFICATE, path, "it is no certificate in PEM", expected) from exc
