"""The `http` section: where to listen, and what every response carries.

Invariant: an address that was configured is listened on as it was meant, or is a problem; so is
TLS, which the listener does not speak.
"""

import ipaddress
import re

from server.config_secret import read_secret
from server.config_tree import InvalidValue, Reader, show
from server.config_values import (
    one_of,
    parse_address,
    parse_bool,
    parse_duration_s,
    parse_header_name,
    parse_header_value,
    parse_metrics_path,
    parse_path_prefix,
)
from server.settings import HTTPSettings, Listener

_DEFAULTS = HTTPSettings()
_METRICS_PATH = "/metrics"
# Nobody guesses so many; they go into a header field as they are.
_MIN_TOKEN_CHARS = 16
_TOKEN = re.compile(r"[\x21-\x7e]+", re.ASCII)
_parse_net = one_of("tcp", "unix")


def build_http(http: Reader) -> HTTPSettings:
    """Build the settings of both listeners."""
    debug = http.section("debug")
    debug_listeners = _read_listeners(debug)
    prometheus_path = _read_metrics_path(debug.section("prometheus"))
    if prometheus_path and not debug_listeners:
        debug.section("prometheus").warn("enabled", "nobody can ask: http.debug.addr is not set")
    _refuse_tls(http.section("tls"))
    return HTTPSettings(
        listeners=_read_listeners(http) or _DEFAULTS.listeners,
        headers=_read_headers(http.section("headers")),
        prefix=http.value("prefix", parse_path_prefix, _DEFAULTS.prefix),
        draintimeout_s=http.value("draintimeout", parse_duration_s, _DEFAULTS.draintimeout_s),
        debug_listeners=debug_listeners,
        prometheus_path=prometheus_path,
        debug_token=_read_token(debug),
    )


def find_exposed(listeners: tuple[Listener, ...]) -> list[Listener]:
    """List the addresses that other machines can connect to."""
    return [listener for listener in listeners if not _is_local(listener)]


def _is_local(listener: Listener) -> bool:
    if listener.path or listener.host == "localhost":
        return True
    try:
        return ipaddress.ip_address(listener.host).is_loopback
    except ValueError:
        return False  # a name: who knows where it leads; empty: every interface


def _refuse_tls(tls: Reader) -> None:
    expected = "no TLS: the listener does not speak it in this version; put a TLS proxy before it"
    if tls.text("certificate") is not None:
        tls.add_problem("certificate", "a certificate", expected)
    if tls.section("letsencrypt").text("cachefile") is not None:
        tls.add_problem("letsencrypt", "a cachefile", expected)


def _read_token(debug: Reader) -> str | None:
    token = read_secret(debug, "token", "tokenfile")
    if token and not (len(token) >= _MIN_TOKEN_CHARS and _TOKEN.fullmatch(token)):
        key = "token" if debug.text("token") is not None else "tokenfile"
        debug.add_problem(
            key,
            f"{len(token)} characters",
            f"at least {_MIN_TOKEN_CHARS} visible ASCII characters without spaces, such as "
            "`openssl rand -hex 32` makes",
        )
    return token


def _read_listeners(section: Reader) -> tuple[Listener, ...]:
    """Read `addr`: one address, several with commas between, or a list."""
    net = section.value("net", _parse_net, "tcp")
    listeners: list[Listener] = []
    for text in section.texts("addr"):
        for address in [text] if net == "unix" else text.split(","):
            try:
                listeners.append(
                    Listener(path=address.removeprefix("unix:"))
                    if net == "unix"
                    else parse_address(address)
                )
            except InvalidValue as exc:
                section.add_problem("addr", show(address), exc.expected)
    return tuple(dict.fromkeys(listeners))


def _read_headers(headers: Reader) -> tuple[tuple[str, str], ...]:
    lines = []
    for name in headers.keys:
        try:
            parse_header_name(name)
        except InvalidValue as exc:
            headers.add_problem(name, show(name), exc.expected)
        lines += [(name, value) for value in headers.values(name, parse_header_value)]
    return tuple(lines)


def _read_metrics_path(prometheus: Reader) -> str:
    path = prometheus.value("path", parse_metrics_path, _METRICS_PATH)
    return path if prometheus.value("enabled", parse_bool, False) else ""
