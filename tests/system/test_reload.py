"""A running mirror reads its configuration and its certificates again, and nobody notices."""

import http.client
import signal
import ssl
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from tests.fakes.accounts import basic, write_accounts
from tests.fakes.authority import Authority
from tests.fakes.mirror import Mirror, Site, site_of
from tests.fakes.upstream import ThreadedUpstream

pytestmark = pytest.mark.system

REPOSITORY = "library/busybox"


@pytest.fixture
def upstream() -> Iterator[ThreadedUpstream]:
    with ThreadedUpstream() as threaded:
        threaded.upstream.content.add_image(REPOSITORY, "1.35")
        yield threaded


def reload(site: Site, mirror: Mirror, pattern: str = "configuration read again") -> str:
    """Write the site's configuration, have it read, and return the line that says so."""
    (site.directory / "config.yml").write_text(yaml.safe_dump(site.config))
    count = len(mirror.child.lines())
    mirror.child.signal(signal.SIGHUP)
    return mirror.child.wait_for(pattern + ".*", after=count)[0]


def get(mirror: Mirror, path: str, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", mirror.port, timeout=20)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response


def test_what_can_change_changes_without_a_restart(
    tmp_path: Path, upstream: ThreadedUpstream
) -> None:
    site = site_of(tmp_path, upstream.upstream.url, tagttl="1h")
    accounts = tmp_path / "accounts"
    write_accounts(accounts, ci="right")
    site.config["auth"] = {"htpasswd": {"realm": "r", "path": str(accounts)}}
    with site.start() as mirror:
        pull = f"/v2/{REPOSITORY}/manifests/1.35"
        assert get(mirror, pull, Authorization=basic("ci", "right")).status == 200
        assert get(mirror, pull, Authorization=basic("ci", "right")).headers["Age"] is not None
        write_accounts(tmp_path / "others", bob="his")
        site.config.update(
            {
                "log": {"level": "debug", "formatter": "json"},
                "http": {"addr": "127.0.0.1:1", "headers": {"X-Team": ["ci"]}},
                "eviction": {"policy": "lru", "maxsize": "1GB", "pins": ["docker.io/a/b:*"]},
                "verify": {"interval": "0"},
                "auth": {"htpasswd": {"realm": "s", "path": str(tmp_path / "others")}},
            }
        )
        line = reload(site, mirror)
        keys = set(line.partition("changes=")[2].partition('"')[0].split(","))
        assert keys == {
            *("log.level", "log.formatter", "http.headers.X-Team", "eviction.policy"),
            *("eviction.maxsize", "eviction.pins", "verify.interval"),
            *("auth.htpasswd.realm", "auth.htpasswd.path"),
        }
        assert "http.addr" in mirror.child.wait_for("until a restart keys=.*")[0]
        refused = get(mirror, pull, Authorization=basic("ci", "right"))
        assert refused.status == 401
        assert refused.headers["WWW-Authenticate"] == 'Basic realm="s"'
        served = get(mirror, pull, Authorization=basic("bob", "his"))
        assert (served.status, served.headers["X-Team"]) == (200, "ci")
        digest = upstream.upstream.content.add_blob(REPOSITORY, b"a blob")
        blob = f"/v2/{REPOSITORY}/blobs/{digest}"
        assert get(mirror, blob, Authorization=basic("bob", "his")).status == 200
        mirror.child.wait_for(rf'^\{{"level":"info","msg":"access".*"digest":"{digest}"')
        assert mirror.drain() == 0


def test_new_credentials_are_used_at_once(tmp_path: Path, upstream: ThreadedUpstream) -> None:
    upstream.upstream.auth.require_basic(ci="new")
    site = site_of(tmp_path, upstream.upstream.url, "ci", "old")
    with site.start() as mirror:
        assert get(mirror, f"/v2/{REPOSITORY}/manifests/1.35").status == 403
        assert isinstance(site.config["proxy"], dict)
        site.config["proxy"] |= {"password": "new"}
        assert reload(site, mirror).endswith("changes=proxy.password")
        assert get(mirror, f"/v2/{REPOSITORY}/manifests/1.35").status == 200
        assert not any(word == "new" for line in mirror.child.lines() for word in line.split())


def test_a_wrong_configuration_changes_nothing_and_says_what_check_config_says(
    tmp_path: Path, upstream: ThreadedUpstream
) -> None:
    site = site_of(tmp_path, upstream.upstream.url)
    with site.start() as mirror:
        site.config.update(log={"level": "loud"}, evict={}, http={"headers": {"X-A": ["b"]}})
        line = reload(site, mirror, "the former one stays: .*log.level")
        file = tmp_path / "config.yml"
        assert f"{file}: log.level: found 'loud', expected one of error, warn, info" in line
        mirror.child.wait_for(f"{file}: evict: found an unknown key")
        assert "X-A" not in get(mirror, "/v2/").headers
        site.config.pop("evict")
        site.config["log"] = {"level": "debug"}
        count = len(mirror.child.lines())
        reload(site, mirror)
        assert get(mirror, "/v2/").headers["X-A"] == "b"
        assert not any("unusable" in each for each in mirror.child.lines()[count:])


def test_certificates_are_read_again_under_an_open_connection(
    tmp_path: Path, upstream: ThreadedUpstream
) -> None:
    authority = Authority(tmp_path)
    site = site_of(tmp_path, upstream.upstream.url)
    site.config["http"] = {"addr": "127.0.0.1:0", "tls": authority.issue("mirror").section()}
    with site.start() as mirror:
        with closing(connect(mirror, authority)) as old:
            _change_certificates(site, mirror, authority, old)
        assert mirror.drain() == 0


def _change_certificates(
    site: Site, mirror: Mirror, authority: Authority, old: http.client.HTTPSConnection
) -> None:
    assert ask(old) == 200
    pair = authority.issue("mirror")
    reload(site, mirror)
    mirror.child.wait_for("certificate read .*subject=CN=mirror", after=3)
    with closing(connect(mirror, authority)) as new:
        assert serial_of(new) != serial_of(old)
    pair.key.write_text("nonsense")
    reload(site, mirror, "configuration unusable, the former one stays: .*http.tls.key")
    with closing(connect(mirror, authority)) as new:
        assert ask(new) == 200
    assert ask(old) == 200


def connect(mirror: Mirror, authority: Authority) -> http.client.HTTPSConnection:
    connection = http.client.HTTPSConnection(
        "127.0.0.1", mirror.port, context=authority.client(), timeout=20
    )
    connection.connect()
    return connection


def ask(connection: http.client.HTTPSConnection) -> int:
    connection.request("GET", "/v2/")
    response = connection.getresponse()
    response.read()
    return response.status


def serial_of(connection: http.client.HTTPSConnection) -> str:
    assert isinstance(connection.sock, ssl.SSLSocket)
    certificate = connection.sock.getpeercert()
    assert certificate is not None
    return str(certificate["serialNumber"])
