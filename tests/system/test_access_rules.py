"""Access rules on a running mirror: what is denied leaves no trace; proxies are seen through."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from server.login_limit import MAX_PER_USER
from tests.fakes import haproxy
from tests.fakes.accounts import basic, write_accounts
from tests.fakes.mirror import Config, Mirror, site_of
from tests.fakes.proxy_protocol import binary_header_from
from tests.fakes.upstream import Fault, ThreadedUpstream
from tests.fakes.upstream_content import make_bytes
from tests.system.conftest import skip_client
from tests.system.raw import Answer, ask

pytestmark = pytest.mark.system

# Addresses of this machine's that clients come from, each to be told from the others.
INSIDER, OUTSIDER, PROXY = "127.0.0.7", "127.0.0.8", "127.0.0.1"
RULES: Config = {
    "access": {
        "rules": [
            {"networks": [INSIDER], "allow": ["*"]},
            {"allow": ["docker.io/acme/open:1.*"]},
        ]
    }
}


@contextmanager
def run_mirror(
    directory: Path, http: Config, rules: Config = RULES
) -> Iterator[tuple[Mirror, ThreadedUpstream]]:
    with ThreadedUpstream() as thread:
        site = site_of(directory / "mirror", thread.upstream.url)
        merged = {**site.config, **rules, "http": {"addr": "127.0.0.1:0", **http}}
        with replace(site, config=merged).start() as mirror:
            yield mirror, thread


def test_what_is_denied_reaches_no_upstream_and_leaves_no_trace(tmp_path: Path) -> None:
    with run_mirror(tmp_path, {}) as (mirror, thread):
        content = thread.upstream.content
        layer = make_bytes(100_000, seed=1)
        images = {
            name: content.add_image(f"acme/{name}", "1.0", (layer,)) for name in ("open", "shut")
        }
        content.add_image("acme/open", "2.0", (layer,))
        opened, shut = images["open"], images["shut"]
        paths = [
            "/v2/acme/shut/manifests/1.0",
            f"/v2/acme/shut/manifests/{shut.manifest}",
            f"/v2/acme/shut/blobs/{shut.layers[0]}",
            "/v2/acme/shut/tags/list",
            f"/v2/acme/shut/referrers/{shut.manifest}",
            "/v2/acme/open/manifests/2.0",
        ]

        def ask_from(source: str, path: str, method: str = "GET") -> Answer:
            return ask(mirror.address, path, method=method, source=source)

        def check_denied() -> None:
            before = len(thread.upstream.requests)
            for path in paths:
                for method in ("GET", "HEAD"):
                    answer = ask_from(OUTSIDER, path, method)
                    assert answer.status == 403
                    assert answer.code == ("DENIED" if method == "GET" else "")
            assert len(thread.upstream.requests) == before

        check_denied()
        assert ask_from(INSIDER, "/v2/_catalog").body == b'{"repositories":[]}'
        # The same blob, and the very repository, being here for others, change nothing.
        assert ask_from(OUTSIDER, f"/v2/acme/open/blobs/{opened.layers[0]}").body == layer
        assert ask_from(INSIDER, f"/v2/acme/shut/blobs/{shut.layers[0]}").body == layer
        assert ask_from(INSIDER, "/v2/acme/shut/manifests/1.0").status == 200
        check_denied()
        assert ask_from(OUTSIDER, "/v2/_catalog").body == b'{"repositories":["acme/open"]}'
        tags = ask_from(OUTSIDER, "/v2/acme/open/tags/list").body
        assert tags == b'{"name":"acme/open","tags":["1.0"]}'
        # Nor does an upstream that is down.
        thread.upstream.fail(Fault(status=503), times=None)
        check_denied()


def find_haproxy() -> None:
    if haproxy.PROGRAM is None:
        skip_client("haproxy", "not installed")


@pytest.mark.parametrize(
    "way", [haproxy.BINARY, haproxy.TEXT, haproxy.WITH_EXTENSIONS, haproxy.FIELD]
)
def test_a_real_proxy_is_seen_through(tmp_path: Path, way: str) -> None:
    find_haproxy()
    http: Config = {"trustedproxies": [PROXY], "proxyprotocol": way != haproxy.FIELD}
    with run_mirror(tmp_path, http) as (mirror, thread):
        digest = thread.upstream.content.add_blob("acme/shut", b"a blob")
        path = f"/v2/acme/shut/blobs/{digest}"
        with haproxy.run_haproxy(tmp_path / "proxy", mirror.address, way) as address:
            for _ in range(2):
                assert ask(address, path, source=INSIDER).body == b"a blob"
                # What a client writes itself is not believed.
                forged = {"X-Forwarded-For": INSIDER, "Forwarded": f"for={INSIDER}"}
                assert ask(address, path, forged, source=OUTSIDER).status == 403
        for client, status in ((INSIDER, 200), (OUTSIDER, 403)):
            mirror.child.wait_for(rf"access method=GET .* status={status} .* remote={client} ")


def test_a_connection_without_the_header_is_closed(tmp_path: Path) -> None:
    http: Config = {"trustedproxies": [PROXY], "proxyprotocol": True}
    with run_mirror(tmp_path, http) as (mirror, _):
        with pytest.raises(ConnectionError):
            ask(mirror.address, "/v2/")
        mirror.child.wait_for(r"PROXY protocol header remote=127\.0\.0\.1 cause=no header of the")
        with pytest.raises(ConnectionError):
            ask(mirror.address, "/v2/", source=OUTSIDER)
        mirror.child.wait_for(r"remote=127\.0\.0\.8 cause=not one of http\.trustedproxies")
        host, port = mirror.address.split(":")
        with socket.create_connection((host, int(port))) as stalled:
            stalled.sendall(binary_header_from(INSIDER)[:20])
            assert mirror.drain() == 0


def test_logins_are_limited_by_the_clients_address(tmp_path: Path) -> None:
    accounts = tmp_path / "htpasswd"
    write_accounts(accounts, ci="right")
    auth: Config = {"auth": {"htpasswd": {"realm": "r", "path": str(accounts)}}}
    with run_mirror(tmp_path, {"trustedproxies": [PROXY]}, auth) as (mirror, _):

        def log_in(client: str, password: str) -> int:
            sent = {"Authorization": basic("ci", password), "X-Forwarded-For": client}
            return ask(mirror.address, "/v2/", sent).status

        for number in range(MAX_PER_USER):
            assert log_in("192.0.2.1", f"guess {number}") == 401
        assert log_in("192.0.2.1", "one more") == 429
        assert log_in("6.6.6.6, 192.0.2.1", "one more") == 429
        assert log_in("192.0.2.2", "right") == 200
        mirror.child.wait_for(r"login failed remote=192\.0\.2\.1 user=ci ")
