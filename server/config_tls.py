"""The `http.tls` section: whether clients speak TLS, and who they must be.

Invariant: what was configured is what is demanded of clients, or is a problem: a demand that cannot
be made is never dropped. Files are read, so that what is wrong with them is said here, too.
"""

from engine.pem import PemError, Role
from server.config_tree import InvalidValue, Reader, show
from server.config_values import one_of
from server.settings import ClientAuth, TLSSettings
from server.tls_ciphers import SUITES, TLS_13_SUITES

_ANY = "require-any-client-cert"
_CLIENT_AUTH = tuple(mode.value for mode in ClientAuth if mode is not ClientAuth.NONE)
_IDLE_KEYS = ("key", "clientcas", "clientauth", "minimumtls", "ciphersuites")

_parse_minimum = one_of("tls1.2", "tls1.3")


def build_tls(tls: Reader) -> TLSSettings | None:
    """Build the settings; None for plain HTTP. Reads the files that are named."""
    if tls.section("letsencrypt").text("cachefile") is not None:
        expected = "none: certificates are not fetched here; have an ACME client renew the files"
        tls.add_problem("letsencrypt", "a cachefile", expected)
    certificate, key = tls.text("certificate"), tls.text("key")
    if certificate is None:
        _warn_of_idle(tls)
        return None
    if key is None:
        tls.add_problem("key", "nothing", "the path of the certificate's private key")
        return None
    problem_count = len(tls.report.problems)
    settings = TLSSettings(
        certificate=certificate,
        key=key,
        clientcas=tuple(tls.texts("clientcas")),
        clientauth=_read_client_auth(tls),
        minimumtls=tls.value("minimumtls", _parse_minimum, "tls1.2"),
        ciphersuites=tuple(tls.values("ciphersuites", _parse_suite)),
    )
    if settings.minimumtls == "tls1.3" and settings.ciphersuites:
        tls.warn("ciphersuites", "not used: those of TLS 1.3 cannot be chosen among")
    if len(tls.report.problems) == problem_count:
        _check_files(tls, settings)
    return settings


def _warn_of_idle(tls: Reader) -> None:
    for key in _IDLE_KEYS:
        if tls.node(key):
            tls.warn(key, "not used, as there is no certificate: this is plain HTTP")


def _read_client_auth(tls: Reader) -> ClientAuth:
    has_authorities = bool(tls.texts("clientcas"))
    # As in distribution: authorities alone mean that every client must be known to them.
    default = ClientAuth.REQUIRE_AND_VERIFY if has_authorities else ClientAuth.NONE
    mode = tls.value("clientauth", _parse_client_auth, default)
    if mode is ClientAuth.REQUEST:
        tls.warn("clientauth", "no certificate is asked for, since none would be verified")
    elif mode is not ClientAuth.NONE and not has_authorities:
        tls.add_problem("clientcas", "nothing", f"the CAs by which {mode.value} verifies")
    return mode


def _parse_client_auth(text: str) -> ClientAuth:
    if text == _ANY:
        found = f"{_ANY}, by which any certificate will do"
        raise InvalidValue("require-and-verify-client-cert", found)
    try:
        return ClientAuth(text)
    except ValueError:
        raise InvalidValue(f"one of {', '.join(_CLIENT_AUTH)}") from None


def _parse_suite(text: str) -> str:
    if text not in SUITES and text not in TLS_13_SUITES:
        suites = ", ".join((*SUITES, *TLS_13_SUITES))
        raise InvalidValue(f"one of {suites} (3DES is not offered any more)")
    return text


def _check_files(tls: Reader, settings: TLSSettings) -> None:
    # Not at the top: what reads certificates takes its time to import, and few need it.
    from server.tls_context import load_identity

    try:
        load_identity(settings)
    except PemError as exc:
        key = "clientcas" if exc.role is Role.AUTHORITY else exc.role.value
        tls.add_problem(key, f"{show(exc.path)}: {exc.reason}", exc.expected)
