"""A certificate authority, and what it signs: servers' and clients' certificates in files.

Certificates are for 127.0.0.1 and localhost unless said otherwise; an authority made twice is two.
"""

import datetime
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from server.settings import TLSSettings

DAY = datetime.timedelta(days=1)
_PLAIN = serialization.NoEncryption()


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path

    def settings(self, **others: object) -> TLSSettings:
        """A server that shows this certificate; `others` are further settings."""
        return TLSSettings(str(self.certificate), str(self.key), **others)  # type: ignore[arg-type]  # each test knows its own

    def section(self, **others: object) -> dict[str, object]:
        """The same as the configuration's `http.tls`."""
        return {"certificate": str(self.certificate), "key": str(self.key), **others}


class Authority:
    """Signs certificates; its files lie in `directory`."""

    def __init__(self, directory: Path, name: str = "test authority") -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self.path = directory / f"{name.replace(' ', '-')}.pem"
        now = datetime.datetime.now(datetime.UTC)
        self.path.write_bytes(_pem(self._sign(self._name, self._key, now + 30 * DAY, is_ca=True)))

    def issue(
        self,
        name: str | None,
        *,
        hosts: tuple[str, ...] = ("127.0.0.1", "localhost"),
        lasts: datetime.timedelta = 30 * DAY,
        password: bytes | None = None,
        file: str | None = None,
    ) -> Pair:
        """Make a certificate with `name` as its common name, and write it over an earlier one."""
        key = ec.generate_private_key(ec.SECP256R1())
        ends_at = datetime.datetime.now(datetime.UTC) + lasts
        certificate = self._sign(_name(name), key, ends_at, hosts=hosts)
        stem = file or name or "nameless"
        pair = Pair(self._directory / f"{stem}.pem", self._directory / f"{stem}.key")
        encryption = serialization.BestAvailableEncryption(password) if password else _PLAIN
        pair.certificate.write_bytes(_pem(certificate))
        pair.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
            )
        )
        return pair

    def client(
        self, pair: Pair | None = None, version: ssl.TLSVersion | None = None
    ) -> ssl.SSLContext:
        """A client's context that trusts this authority, and shows `pair`."""
        context = ssl.create_default_context(cafile=str(self.path))
        if pair is not None:
            context.load_cert_chain(pair.certificate, pair.key)
        if version is not None:
            context.minimum_version = context.maximum_version = version
        return context

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        ends_at: datetime.datetime,
        *,
        hosts: tuple[str, ...] = (),
        is_ca: bool = False,
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(ends_at - 60 * DAY)
            .not_valid_after(ends_at)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )
        if hosts:
            names = x509.SubjectAlternativeName([_alternative(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _name(name: str | None) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
