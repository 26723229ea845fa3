"""TLS to upstream: whom it trusts, who it is, and faults that say what to do."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import UpstreamUnavailable
from engine.names import Tag
from engine.pem import PemError
from engine.settings import UpstreamSettings
from engine.upstream.registry import Registry
from tests.fakes.authority import DAY, Authority, Pair
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.upstream_client import BUSYBOX, open_registry, soon

pytestmark = pytest.mark.anyio

TAG = Tag("1.35")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def serving(pair: Pair, clients: Authority | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    if clients is not None:
        context.load_verify_locations(clients.path)
        context.verify_mode = ssl.CERT_REQUIRED
        # By TLS 1.3 a client learns that it is refused only after its first request, which
        # looks like any other lost connection; and asyncio's server hangs up without a word.
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


@asynccontextmanager
async def upstream_of(
    pair: Pair, clients: Authority | None = None, **settings: object
) -> AsyncIterator[Registry]:
    async with ScriptedUpstream(tls=serving(pair, clients)) as upstream:
        upstream.content.add_image(BUSYBOX, TAG)
        ours = replace(upstream.settings(), **settings)  # type: ignore[arg-type]  # each test knows its own
        async with open_registry(ours) as registry:
            yield registry


async def ask(registry: Registry, patience_s: float = 10.0) -> None:
    head = await registry.head_manifest(BUSYBOX, TAG, deadline=soon(patience_s))
    assert head.digest is not None


async def ask_in_vain(registry: Registry) -> None:
    """Ask for as long as a handshake may take on a busy machine: a fault is tried again."""
    await ask(registry, 1.0)


async def test_a_private_ca_is_trusted_where_it_is_configured(authority: Authority) -> None:
    pair = authority.issue("registry")
    async with upstream_of(pair, ca=str(authority.path)) as registry:
        await ask(registry)


async def test_a_client_certificate_is_shown(authority: Authority) -> None:
    pair, ours = authority.issue("registry"), authority.issue("mirror")
    shown = {"certificate": str(ours.certificate), "key": str(ours.key)}
    async with upstream_of(pair, authority, ca=str(authority.path), **shown) as registry:
        await ask(registry)


async def test_nothing_is_verified_only_where_that_is_asked_for(authority: Authority) -> None:
    pair = authority.issue("registry", hosts=("other.example",), lasts=-1 * DAY)
    async with upstream_of(pair, is_insecure=True) as registry:
        await ask(registry)


@pytest.mark.parametrize(
    ("made", "has_ca", "cause"),
    [
        ({}, False, "signed by an unknown CA: configure it as `ca`"),
        ({"lasts": -1 * DAY}, True, "it has expired: upstream must renew it"),
        ({"lasts": 90 * DAY}, True, "it is not valid yet: see to this machine's clock"),
        ({"hosts": ("other.example",)}, True, "it is for another host: correct `remoteurl`"),
    ],
)
async def test_a_certificate_that_is_not_trusted_says_why(
    authority: Authority, made: dict[str, object], has_ca: bool, cause: str
) -> None:
    pair = authority.issue("registry", **made)  # type: ignore[arg-type]  # the table's
    ca = str(authority.path) if has_ca else None
    async with upstream_of(pair, ca=ca) as registry:
        with pytest.raises(UpstreamUnavailable, match=f"certificate is not trusted: {cause}"):
            await ask_in_vain(registry)


async def test_a_client_certificate_that_is_missing_is_named(authority: Authority) -> None:
    pair = authority.issue("registry")
    async with upstream_of(pair, authority, ca=str(authority.path)) as registry:
        with pytest.raises(UpstreamUnavailable, match="want a client certificate"):
            await ask_in_vain(registry)


async def test_an_upstream_without_tls_is_named() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        settings = UpstreamSettings("docker.io", url, ("docker.io",))
        async with open_registry(settings) as registry:
            with pytest.raises(UpstreamUnavailable, match="does not speak TLS there"):
                await ask_in_vain(registry)


async def test_files_that_do_not_do_are_named(authority: Authority, tmp_path: Path) -> None:
    pair = authority.issue("mirror")
    base = UpstreamSettings("docker.io", "https://127.0.0.1:1", ("docker.io",))
    for settings, part in (
        (replace(base, ca=str(tmp_path / "none.pem")), "ca .*none.pem: no such file"),
        (replace(base, ca=str(pair.key)), "ca .*mirror.key: it holds no certificates"),
        (
            replace(base, certificate=str(pair.certificate), key=str(authority.path)),
            "key .*: it is no key in PEM",
        ),
    ):
        with pytest.raises(PemError, match=part):
            Registry(settings)
