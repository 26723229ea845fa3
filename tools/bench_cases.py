"""The cases of a benchmark, as data.

Invariant: a case says what is asked for and by which figure targets are compared, and knows nothing
of how it is run. Names are stable: `--only` and stored results go by them.
"""

from dataclasses import dataclass
from enum import Enum, auto

from tools.bench_content import KIB, MIB, Content, Image
from tools.bench_model import Fetch, Metric
from tools.bench_pull import ACCEPT
from tools.bench_servers import FRESH_NAMESPACE
from tools.bench_wrk import Load

_CONNECTIONS = 32
_HERD = 32


class Who(Enum):
    """Which targets a case makes sense for."""

    ALL = auto()
    MIRRORS = auto()  # those that pull from the upstream
    TAG_HOLDERS = auto()  # those that can serve a tag without asking upstream
    TLS = auto()  # those that speak TLS, and nothing else


@dataclass(frozen=True, slots=True)
class Warm:
    """What is stored is asked for as fast as it comes."""

    load: Load
    body_bytes: int


@dataclass(frozen=True, slots=True)
class Cold:
    """Clients pull from a mirror that has nothing yet; `is_limited`: by the link of 100 MB/s."""

    clients: list[list[list[Fetch]]]
    is_limited: bool = False


class Noise(Enum):
    """What else goes on while small hits are asked for at 30 % of the peak rate."""

    NOTHING = auto()
    DOWNLOADS = auto()  # four clients take 50 MB/s each
    CHURN = auto()  # a client takes cold blobs at 100 MB/s: fills, and evictions


@dataclass(frozen=True, slots=True)
class Paced:
    """Small hits at a fixed rate, with company."""

    asked: Fetch
    noise: Noise = Noise.NOTHING
    method: str = "GET"


@dataclass(frozen=True, slots=True)
class Taken:
    """Clients take a blob again and again, each at `pace_bytes_s`."""

    asked: Fetch
    client_count: int
    pace_bytes_s: float


@dataclass(frozen=True, slots=True)
class Crowded:
    """Small hits as fast as they come on half of the connections; slow readers have the others."""

    load: Load
    body_bytes: int
    slow_path: str
    slow_count: int


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the result."""

    name: str
    title: str
    metric: Metric
    work: Warm | Cold | Paced | Taken | Crowded
    who: Who = Who.ALL


def list_cases(content: Content) -> list[Case]:
    """All cases, in the order in which they are run."""
    return [
        *_warm_cases(content),
        *_tls_cases(content),
        *_load_cases(content),
        *_cold_cases(content),
    ]


def _warm_cases(content: Content) -> list[Case]:
    app = content.app
    _, kib1, kib64, mib1, large = app.blobs
    tag, fresh = app.by_tag, fresh_tag(app)
    return [
        _rate("manifest", "manifest by digest", app.by_digest),
        _rate("tag", "manifest by tag, tagttl 0", tag, who=Who.MIRRORS),
        _rate("tag-fresh", "manifest by tag, tagttl 60 s", fresh, who=Who.TAG_HOLDERS),
        _rate("blob-1k", "blob 1 KiB", kib1),
        _rate("blob-1k-close", "blob 1 KiB, a connection each", kib1, ("Connection: close",)),
        _varying("blob-1k-varying", "blob 1 KiB, no two requests alike", kib1),
        _rate("blob-64k", "blob 64 KiB", kib64),
        _rate("blob-1m", "blob 1 MiB", mib1),
        _range("range", "a tenth of 1 MiB by Range", mib1),
        _throughput("blob-100m", "blob 100 MiB, 8 connections", large),
        # As fast as they come, the client is the limit; and how much of TCP's work it is charged
        # with, and not the server, varies with how fast that is.
        Case(
            "blob-100m-paced",
            "blob 100 MiB, 8 connections of 50 MB/s",
            Metric.CPU,
            Taken(large, 8, 50e6),
        ),
    ]


def _tls_cases(content: Content) -> list[Case]:
    """The same bodies over TLS 1.3, all with one certificate."""
    _, kib1, kib64, mib1, large = content.app.blobs
    closing = ("Connection: close",)
    return [
        _rate("tls-blob-1k", "TLS: blob 1 KiB", kib1, who=Who.TLS),
        _rate(
            "tls-blob-1k-close", "TLS: blob 1 KiB, a connection each", kib1, closing, who=Who.TLS
        ),
        _rate("tls-blob-64k", "TLS: blob 64 KiB", kib64, who=Who.TLS),
        _rate("tls-blob-1m", "TLS: blob 1 MiB", mib1, who=Who.TLS),
        _throughput("tls-blob-100m", "TLS: blob 100 MiB, 8 connections", large, Who.TLS),
    ]


def _load_cases(content: Content) -> list[Case]:
    _, small, _, _, large = content.app.blobs
    crowd = Crowded(Load(small.path, 500), small.size_bytes, large.path, 500)
    title, manifest = "1 KiB at 30 % of the peak rate", content.app.by_digest
    return [
        Case(
            "manifest-head",
            "HEAD of a manifest at 30 % of GET's peak rate",
            Metric.P99,
            Paced(manifest, method="HEAD"),
        ),
        Case("paced", title, Metric.P99, Paced(small)),
        Case(
            "paced-downloads",
            f"{title}, beside downloads",
            Metric.P99,
            Paced(small, Noise.DOWNLOADS),
        ),
        Case(
            "paced-churn",
            f"{title}, beside fills and evictions",
            Metric.P99,
            Paced(small, Noise.CHURN),
            Who.MIRRORS,
        ),
        Case("slow-readers", "1 KiB on 500 connections, 500 slow readers", Metric.RATE, crowd),
    ]


def _cold_cases(content: Content) -> list[Case]:
    big, limited = [[content.cold]], [[content.limited]]
    size, limited_size = content.cold.size_bytes // 10**6, content.limited.size_bytes // 10**6
    return [
        _cold("cold-1", f"{size} MB, 1 client", Cold([big])),
        _cold("cold-32", f"{size} MB, {_HERD} clients", Cold([big] * _HERD)),
        _cold(
            "cold-1-limited",
            f"{limited_size} MB, 1 client, upstream at 100 MB/s",
            Cold([limited], is_limited=True),
        ),
        _cold(
            "cold-32-limited",
            f"{limited_size} MB, {_HERD} clients, upstream at 100 MB/s",
            Cold([limited] * _HERD, is_limited=True),
        ),
        _cold("cold-image", "an image of 12 layers, 1 client", Cold([_pull(content.twelve)])),
        _cold(
            "cold-64-images",
            f"{len(content.images)} images that share layers, a client each",
            Cold([_pull(image) for image in content.images]),
        ),
    ]


def fresh_tag(image: Image) -> Fetch:
    """The manifest by a tag that Moorage may serve unasked for a while."""
    rest = image.by_tag.path.removeprefix("/v2/")
    return Fetch(f"/v2/{FRESH_NAMESPACE}/{rest}", image.by_tag.size_bytes, image.by_tag.xxh3)


def _pull(image: Image) -> list[list[Fetch]]:
    """What a client does to have an image."""
    return [[image.by_tag], list(image.blobs)]


def _rate(
    name: str,
    title: str,
    asked: Fetch,
    headers: tuple[str, ...] = (),
    *,
    who: Who = Who.ALL,
) -> Case:
    load = Load(asked.path, _CONNECTIONS, (ACCEPT, *headers))
    return Case(name, title, Metric.RATE, Warm(load, asked.size_bytes), who)


def _varying(name: str, title: str, asked: Fetch) -> Case:
    load = Load(asked.path, _CONNECTIONS, is_varying=True)
    return Case(name, title, Metric.RATE, Warm(load, asked.size_bytes))


def _range(name: str, title: str, asked: Fetch) -> Case:
    start, count_bytes = MIB // 2 + KIB, asked.size_bytes // 10
    headers = (f"Range: bytes={start}-{start + count_bytes - 1}",)
    return Case(
        name,
        title,
        Metric.RATE,
        Warm(Load(asked.path, _CONNECTIONS, headers=headers), count_bytes),
    )


def _throughput(name: str, title: str, asked: Fetch, who: Who = Who.ALL) -> Case:
    return Case(name, title, Metric.THROUGHPUT, Warm(Load(asked.path, 8), asked.size_bytes), who)


def _cold(name: str, title: str, work: Cold) -> Case:
    return Case(name, f"cold: {title}", Metric.TIME, work, Who.MIRRORS)
