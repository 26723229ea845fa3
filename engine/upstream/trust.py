"""Whom an upstream's TLS trusts, and what is wrong with a handshake that failed.

Invariant: certificates are verified against the system's trust store, and the upstream's own CAs
beside it (a redirect may lead to a public host), unless `insecure` says otherwise.
"""

import ssl

from engine.pem import add_authorities, load_pair
from engine.settings import UpstreamSettings

# OpenSSL's verification codes (openssl-verification-options(1), x509_vfy.h), and what to do.
_UNKNOWN_AUTHORITY = "signed by an unknown CA: configure it as `ca`, or add it to the system's"
_OTHER_NAME = "it is for another host: correct `remoteurl`, or upstream's certificate"
_MEANINGS = {
    9: "it is not valid yet: see to this machine's clock",
    10: "it has expired: upstream must renew it (or this machine's clock is wrong)",
    18: _UNKNOWN_AUTHORITY,
    19: _UNKNOWN_AUTHORITY,
    20: _UNKNOWN_AUTHORITY,
    21: _UNKNOWN_AUTHORITY,
    62: _OTHER_NAME,
    64: _OTHER_NAME,
}
_REASONS = {
    "WRONG_VERSION_NUMBER": "upstream does not speak TLS there: is `remoteurl` http?",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "upstream wants a client certificate: configure "
    "`certificate` and `key`",
    "TLSV1_ALERT_UNKNOWN_CA": "upstream does not know the CA of our client certificate",
}


def make_context(settings: UpstreamSettings) -> ssl.SSLContext | None:
    """Make the context for an upstream's connections; None: the usual one will do.

    Blocks, on files. Raises `PemError`.
    """
    if not (settings.ca or settings.certificate or settings.is_insecure):
        return None
    context = ssl.create_default_context()
    if settings.ca is not None:
        add_authorities(context, settings.ca)
    if settings.certificate is not None and settings.key is not None:
        load_pair(context, settings.certificate, settings.key)
    if settings.is_insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def describe(error: ssl.SSLError) -> str:
    """Put a failed handshake in words that say what to do. Pure."""
    if isinstance(error, ssl.SSLCertVerificationError):
        meaning = _MEANINGS.get(error.verify_code)
        why = error.verify_message if meaning is None else f"{meaning} ({error.verify_message})"
        return f"certificate is not trusted: {why}"
    reason = error.reason or str(error)
    words = reason.lower().replace("_", " ")
    meaning = _REASONS.get(reason)
    return f"TLS failed: {words if meaning is None else f'{meaning} ({words})'}"
