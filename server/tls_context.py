"""What TLS is agreed on with clients, made of the files that the configuration names.

Invariant: a context is whole (certificate and key belong together, every CA was read) or there is
none: `TLSFilesError` names the key and the file. All of it blocks, on files only.
"""

import ssl
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509

from server.settings import ClientAuth, TLSSettings
from server.tls_ciphers import openssl_names
from server.tls_files import TLSFilesError

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
    """Read all files. Raises `TLSFilesError`."""
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
    _load_pair(context, settings)
    for path in settings.clientcas:
        _load_authority(context, path)
    context.verify_mode = _VERIFY_MODES[settings.clientauth]
    return context


def _load_pair(context: ssl.SSLContext, settings: TLSSettings) -> None:
    path = settings.key
    _read("key", path)
    try:
        context.load_cert_chain(settings.certificate, path, password=_refuse_password)
    except ssl.SSLError as exc:
        if exc.reason == "KEY_VALUES_MISMATCH":
            expected = f"the key of {settings.certificate}"
            raise TLSFilesError("key", path, "another certificate's key", expected) from exc
        raise TLSFilesError("key", path, "not a key in PEM", "a private key in PEM") from exc
    except _Encrypted as exc:
        raise TLSFilesError("key", path, "which is encrypted", "a key without password") from exc


class _Encrypted(Exception):
    """The key wants a password, and there is nobody to ask."""


def _refuse_password() -> str:
    raise _Encrypted


def _load_authority(context: ssl.SSLContext, path: str) -> None:
    text = _read("clientcas", path)
    try:
        context.load_verify_locations(cadata=text.decode("ascii", "replace"))
    except ssl.SSLError as exc:
        expected = "a file of CA certificates in PEM"
        raise TLSFilesError("clientcas", path, "not certificates in PEM", expected) from exc


def _read_certificate(path: str) -> x509.Certificate:
    """Read the first certificate of a file, the server's own; those of CAs follow it."""
    try:
        return x509.load_pem_x509_certificates(_read("certificate", path))[0]
    except ValueError as exc:
        expected = "a certificate in PEM, its CAs behind it"
        raise TLSFilesError("certificate", path, "not a certificate in PEM", expected) from exc


def _read(key: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as exc:
        reason = exc.strerror or "unreadable"
        raise TLSFilesError(key, path, reason.lower(), "a readable file") from exc
