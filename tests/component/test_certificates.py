"""The server's certificate: read again when it changes, kept when the new one cannot be used."""

import asyncio
import datetime
import os
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from engine.pem import PemError
from engine.settings import EngineSettings, UpstreamSettings
from server.certificates import Certificates, describe_expiry
from server.settings import HTTPSettings, ServerSettings, TLSSettings
from server.tls_context import Identity, load_identity
from tests.fakes.authority import DAY, Authority, Pair
from tests.fakes.transport import open_site, pattern

pytestmark = pytest.mark.anyio

NOW = datetime.datetime(2026, 5, 1, 12, tzinfo=datetime.UTC)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def settle(certificates: Certificates) -> None:
    """Look twice: what was written must have been still for one look."""
    await certificates.look_once()
    await certificates.look_once()


async def test_new_connections_see_a_new_certificate_and_old_ones_go_on(
    authority: Authority, tmp_path: Path
) -> None:
    certificates = Certificates(authority.issue("mirror").settings())
    async with open_site(tmp_path, connect=certificates.connect, tls=authority.client()) as site:
        old = await site.connect()
        old.send(b"GET /file/20000000 HTTP/1.1\r\nHost: x\r\n\r\n")
        await old.reader.readuntil(b"\r\n\r\n")
        authority.issue("mirror")
        await settle(certificates)
        new = await site.connect()
        assert serial_of(new.writer) != serial_of(old.writer)
        assert await old.reader.readexactly(20_000_000) == pattern(20_000_000)
        assert (await old.get("/hit/3")).body == pattern(3)


def serial_of(writer: object) -> str:
    certificate = writer.get_extra_info("ssl_object").getpeercert()  # type: ignore[attr-defined]  # a StreamWriter
    return str(certificate["serialNumber"])


async def test_a_broken_certificate_is_an_error_once_and_the_former_one_stays(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    pair = authority.issue("mirror")
    certificates = Certificates(pair.settings())
    before = certificates.identity
    pair.key.write_text("nonsense")
    for _ in range(3):
        await settle(certificates)
    assert certificates.identity is before
    assert caplog.text.count("certificate unusable, the former one stays") == 1
    assert f"key {pair.key}: it is no key in PEM" in caplog.text
    authority.issue("mirror")
    await settle(certificates)
    assert certificates.identity is not before


async def test_a_key_that_is_written_after_its_certificate_is_waited_for(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificates = Certificates(authority.issue("mirror").settings())
    new = authority.issue("new")
    os.replace(new.certificate, tmp_path / "mirror.pem")
    await certificates.look_once()
    os.replace(new.key, tmp_path / "mirror.key")
    await settle(certificates)
    assert "CN=new" in certificates.identity.subject
    assert "unusable" not in caplog.text


async def test_a_look_that_takes_long_does_not_undo_a_reload(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = authority.issue("old").settings(), authority.issue("new").settings()
    certificates = Certificates(old)

    async def to_thread(load: Callable[[TLSSettings], Identity], settings: TLSSettings) -> Identity:
        for _ in range(100 if settings == old else 0):
            await asyncio.sleep(0)
        return load(settings)

    monkeypatch.setattr("server.certificates.asyncio.to_thread", to_thread)
    hub = UpstreamSettings("docker.io", "https://hub.example", ("docker.io",))
    engine = EngineSettings(tmp_path, (hub,))
    adopted = ServerSettings(engine, HTTPSettings(tls=new))
    await asyncio.gather(certificates.reload(), certificates.adopt(adopted))
    assert certificates.identity.subject == "CN=new"


async def test_a_missing_file_is_a_broken_one(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    pair = authority.issue("mirror")
    certificates = Certificates(pair.settings())
    pair.certificate.unlink()
    await settle(certificates)
    assert "no such file or directory" in caplog.text


async def test_a_certificate_that_ends_soon_is_warned_of_daily(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    now = datetime.datetime.now(datetime.UTC)
    certificates = Certificates(authority.issue("mirror", lasts=10 * DAY).settings(), lambda: now)
    warnings = []
    for hours in (0, 1, 23, 25, 40, 50):
        now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=hours)
        certificates.warn_of_expiry()
        warnings.append(caplog.text.count("certificate expires in"))
    assert warnings == [1, 1, 1, 2, 2, 3]
    assert "action=renew the file" in caplog.text


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        (DAY * 15, None),
        (DAY * 14, "expires in 14 days, at 2026-05-15 12:00 UTC"),
        (DAY / 2, "expires in 0 days, at 2026-05-02 00:00 UTC"),
        (DAY * 0, "has expired at 2026-05-01 12:00 UTC: clients refuse it"),
        (DAY * -3, "has expired at 2026-04-28 12:00 UTC: clients refuse it"),
    ],
)
async def test_expiry_is_put_in_words(left: datetime.timedelta, expected: str | None) -> None:
    assert describe_expiry(NOW + left, NOW) == expected


def write_rsa_key(directory: Path) -> Path:
    file = directory / "rsa.key"
    file.write_bytes(
        rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return file


async def test_files_that_do_not_do_are_named(authority: Authority, tmp_path: Path) -> None:
    pair = authority.issue("mirror")
    settings = pair.settings()
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    encrypted = authority.issue("locked", password=b"secret")
    cases = [
        (encrypted.settings(), "key", "it is encrypted"),
        (Pair(nonsense, pair.key).settings(), "certificate", "it is no certificate in PEM"),
        (Pair(tmp_path, pair.key).settings(), "certificate", "is a directory"),
        (Pair(pair.certificate, nonsense).settings(), "key", "it is no key in PEM"),
        (Pair(pair.certificate, tmp_path / "none").settings(), "key", "no such file"),
        (Pair(pair.certificate, encrypted.certificate).settings(), "key", "it is no key in PEM"),
        *(
            (Pair(pair.certificate, key).settings(), "key", "another certificate's key")
            for key in (authority.issue("other").key, write_rsa_key(tmp_path))
        ),
        (pair.settings(clientcas=(str(nonsense),)), "ca", "it holds no certificates"),
        (pair.settings(clientcas=(str(pair.key),)), "ca", "it holds no certificates"),
    ]
    assert load_identity(settings).context.minimum_version is ssl.TLSVersion.TLSv1_2
    for wrong, key, reason in cases:
        with pytest.raises(PemError, match=reason) as raised:
            load_identity(wrong)
        assert raised.value.role.value == key


async def test_suites_of_tls_1_3_alone_leave_nothing_for_1_2(authority: Authority) -> None:
    settings = authority.issue("mirror").settings(ciphersuites=("TLS_AES_128_GCM_SHA256",))
    assert load_identity(settings).context.minimum_version is ssl.TLSVersion.TLSv1_3
