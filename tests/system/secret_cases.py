"""Ways for an upstream to fail with a secret in its mouth, one for each place that holds one.

Invariant: each case is for an upstream of its own, so all can be asked at the same moment.
`Secrets` makes every secret there is, so that a test can look for all of them.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from tests.fakes.upstream import Fault, ScriptedUpstream

MANIFEST, BLOB, TAGS = "manifests/1", "blobs/{layer}", "tags/list"


class Secrets:
    """Makes secrets that stand nowhere by chance, and keeps them."""

    def __init__(self) -> None:
        self.all: list[str] = []

    def make(self) -> str:
        """Make another one."""
        number = len(self.all)
        self.all.append(f"leak{number}-{hashlib.sha256(bytes([number])).hexdigest()[:20]}")
        return self.all[-1]

    def signed(self, base: str = "http://127.0.0.1:1") -> str:
        """Make an URL as S3 signs it."""
        signature = f"X-Amz-Credential={self.make()}&X-Amz-Signature={self.make()}"
        return f"{base}/bucket/key?{signature}#{self.make()}"


@dataclass(frozen=True, slots=True)
class Case:
    """What fails how. `kind`: of which requests; `path`: what is asked below the repository."""

    kind: str
    fault: Fault
    path: str
    method: str = "GET"


def make_cases(secrets: Secrets, other: ScriptedUpstream) -> list[Case]:
    """Make all of them. Whatever is retried for long is asked by HEAD, which gives up sooner.

    `other`: an upstream that runs, for redirects.
    """
    return [
        *(Case("token", fault, MANIFEST) for fault in _token_faults(secrets)),
        *(Case("manifest", fault, MANIFEST) for fault in _manifest_faults(secrets)),
        *(Case("blob", fault, BLOB, "HEAD") for fault in _redirects(secrets, other)),
        *(Case("cdn", fault, BLOB) for fault in _storage_faults(secrets)),
        *(Case("tags", fault, TAGS) for fault in _list_faults(secrets)),
    ]


def _token_faults(secrets: Secrets) -> Iterator[Fault]:
    yield Fault(body=f'{{"token": ["{secrets.make()}"]}}'.encode())
    yield Fault(body=f'{{"token": "{secrets.make()}'.encode())
    yield Fault(body=f'{{"token": "{secrets.make()}\\n"}}'.encode())
    yield Fault(redirect_to=secrets.signed())
    yield Fault(redirect_to=f"http://{secrets.make()}:{secrets.make()}@[bad/")
    yield Fault(status=401)
    yield Fault(status=500, body=f"<trace>{secrets.make()}</trace>".encode())
    yield Fault(drop=True)
    yield _malformed(secrets)


def _manifest_faults(secrets: Secrets) -> Iterator[Fault]:
    for realm in (
        f"https://ann:{secrets.make()}@127.0.0.1/token?sig={secrets.make()}",
        f"https://foreign.example/token?sig={secrets.make()}",
        f"http://[bad/token?sig={secrets.make()}",
        f"ftp://127.0.0.1/token?sig={secrets.make()}",
    ):
        challenge = f'Bearer realm="{realm}",service="x"'
        yield Fault(status=401, headers={"WWW-Authenticate": challenge})
    yield Fault(redirect_to=f"http://[bad?X-Amz-Signature={secrets.make()}")
    yield Fault(headers={"Set-Cookie": secrets.make(), "Content-Length": secrets.make()})
    yield Fault(body=f"not {secrets.make()}".encode())
    yield _malformed(secrets)


def _redirects(secrets: Secrets, other: ScriptedUpstream) -> Iterator[Fault]:
    tls = other.registry.url.replace("http:", "https:")
    for base in ("http://127.0.0.1:1", "http://no-such-host.invalid", tls):
        yield Fault(redirect_to=secrets.signed(base))
    yield Fault(redirect_to=f"ftp://ann:{secrets.make()}@127.0.0.1/?sig={secrets.make()}")
    yield Fault(redirect_to=f"http://ann:{secrets.make()}@[bad/?X-Amz-Signature={secrets.make()}")
    yield Fault(redirect_to=f"http://{'a' * 70}.test/?X-Amz-Signature={secrets.make()}")
    yield Fault(redirect_to=f"http://127.0.0.1:99999/?X-Amz-Signature={secrets.make()}")
    yield Fault(redirect_to=f"/\u00e9 ?X-Amz-Signature={secrets.make()}")
    yield Fault(redirect_to=secrets.signed() + "x" * 10_000)  # more than a header line may have


def _storage_faults(secrets: Secrets) -> Iterator[Fault]:
    """What storage says of signatures is as S3 says it: with the signature."""
    words = f"<Error><SignatureProvided>{secrets.make()}</SignatureProvided></Error>".encode()
    yield Fault(status=403, body=words)
    yield Fault(status=400, body=words)
    yield Fault(corrupt_at=0)
    yield Fault(redirect_to=f"?X-Amz-Signature={secrets.make()}")
    yield _malformed(secrets)


def _list_faults(secrets: Secrets) -> Iterator[Fault]:
    for url in (
        f"https://elsewhere.example/?token={secrets.make()}",
        f"http://ann:{secrets.make()}@[bad?token={secrets.make()}",
    ):
        yield Fault(headers={"Link": f'<{url}>; rel="next"'})
    yield Fault(body=f'{{"tags": "{secrets.make()}"}}'.encode())


def _malformed(secrets: Secrets) -> Fault:
    """A head that no parser takes, with an URL in the line that it stumbles over."""
    return Fault(headers={f"Loca tion: {secrets.signed()}": "x"})
