"""`auth.htpasswd` as distribution's example files have it: who gets in, with real clients too."""

import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakes.accounts import basic, write_accounts
from tests.fakes.clients import ClientFailed, Sandbox
from tests.fakes.clients_as_users import ContainerdAsUser, SkopeoAsUser
from tests.fakes.distribution import run_registry
from tests.fakes.images_catalogue import catalogue
from tests.fakes.mirror import Config, Mirror, Site, site_of
from tests.fakes.upstream import ThreadedUpstream
from tests.system.conftest import require_client, require_registry
from tests.system.raw import Answer, ask

pytestmark = pytest.mark.system

PATH = "/v2/acme/app/blobs/"


def protect(site: Site, path: Path) -> Site:
    """Write the rest of distribution's example file around the mirror's own keys."""
    example: Config = {
        "log": {"fields": {"service": "registry"}},
        "health": {"storagedriver": {"enabled": True, "interval": "10s", "threshold": 3}},
    }
    return replace(site, config=site.config | example | _auth(path))


def _auth(path: Path) -> Config:
    return {"auth": {"htpasswd": {"realm": "basic-realm", "path": str(path)}}}


@contextmanager
def run_protected(directory: Path, path: Path) -> Iterator[tuple[Mirror, str, ThreadedUpstream]]:
    """Run a protected mirror; gives the path of a blob, too."""
    with ThreadedUpstream() as thread:
        digest = thread.upstream.content.add_blob("acme/app", b"a blob")
        site = protect(site_of(directory / "mirror", thread.upstream.url), path)
        with site.start() as mirror:
            yield mirror, f"{PATH}{digest}", thread


def ask_as(mirror: Mirror, target: str, user: str, password: str) -> Answer:
    return ask(mirror.address, target, {"Authorization": basic(user, password)})


def test_only_who_logs_in_is_served(tmp_path: Path) -> None:
    path = tmp_path / "htpasswd"
    write_accounts(path, ci="right: with a colon")
    with run_protected(tmp_path, path) as (mirror, blob, thread):
        for target in ("/v2/", blob, "/v2/_catalog", "/nowhere"):
            for method in ("GET", "HEAD", "PUT"):
                refused = ask(mirror.address, target, method=method)
                assert refused.status == 401
                assert refused.headers["www-authenticate"] == 'Basic realm="basic-realm"'
                assert refused.code == ("" if method == "HEAD" else "UNAUTHORIZED")
        assert ask_as(mirror, blob, "ci", "wrong").code == "UNAUTHORIZED"
        assert ask(mirror.address, "/").status == 200
        assert thread.upstream.requests == []

        assert ask_as(mirror, "/v2/", "ci", "right: with a colon").status == 200
        for _ in range(2):
            served = ask_as(mirror, blob, "ci", "right: with a colon")
            assert (served.status, served.body) == (200, b"a blob")
        assert thread.upstream.count(kind="blob") == 1
        secret = basic("ci", "right: with a colon").removeprefix("Basic ")
        assert not [line for line in mirror.child.lines() if secret in line]
        assert secret not in str([seen.headers for seen in thread.upstream.requests])
        assert mirror.drain() == 0


def test_a_missing_file_is_made_and_its_password_works(tmp_path: Path) -> None:
    path = tmp_path / "registry"
    with run_protected(tmp_path, path) as (mirror, blob, _):
        made = mirror.child.wait_for(r"user=(?P<user>\S+) password=(?P<password>\S+)")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert ask(mirror.address, blob).status == 401
        assert ask_as(mirror, blob, made["user"], made["password"]).body == b"a blob"


def test_a_directory_in_the_files_place_lets_nobody_in(tmp_path: Path) -> None:
    with run_protected(tmp_path, tmp_path) as (mirror, blob, _):
        mirror.child.wait_for(r"auth\.htpasswd\.path: a directory: NOBODY can log in")
        assert ask_as(mirror, blob, "docker", "").status == 401
        assert ask(mirror.address, "/").status == 200


def test_a_malformed_file_is_a_configuration_error(tmp_path: Path) -> None:
    path = tmp_path / "htpasswd"
    path.write_text("ci:hunter2\n")
    site = protect(site_of(tmp_path / "mirror", "http://127.0.0.1:1"), path)
    with site.spawn() as child:
        assert child.wait() == 2
        (line,) = child.lines()
    assert f"auth.htpasswd.path: found {str(path)!r}, line 1: the hash is not bcrypt's" in line
    assert "hunter2" not in line


def test_a_file_that_cannot_be_made_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    site = protect(site_of(tmp_path / "mirror", "http://127.0.0.1:1"), tmp_path / "file" / "a")
    with site.spawn() as child:
        assert child.wait() == 2
    assert any("start failed" in line and "cannot be made" in line for line in child.lines())


def test_distribution_and_the_mirror_read_each_others_files(tmp_path: Path) -> None:
    require_registry()
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    told = re.compile(r"password=(?P<password>[\w-]+)")
    with run_registry(tmp_path / "registry", _auth(theirs)):
        (password,) = told.findall((tmp_path / "registry" / "log").read_text())
    with run_protected(tmp_path / "first", theirs) as (mirror, blob, _):
        assert ask_as(mirror, blob, "docker", password).body == b"a blob"
    with run_protected(tmp_path / "second", ours) as (mirror, _, _):
        password = mirror.child.wait_for(told.pattern)["password"]
    with run_registry(tmp_path / "registry2", _auth(ours)) as registry:
        sent = {"Authorization": basic("docker", password)}
        assert ask(registry.address, "/v2/").status == 401
        assert ask(registry.address, "/v2/", sent).status == 200


@pytest.mark.clients
def test_skopeo_logs_in(site: Site, tmp_path: Path) -> None:
    require_client(SkopeoAsUser)
    path = tmp_path / "htpasswd"
    write_accounts(path, ci="right")
    image = catalogue().pair
    with protect(site, path).start() as mirror:
        client = SkopeoAsUser(Sandbox(tmp_path / "state"), mirror.port)
        with pytest.raises(ClientFailed, match="authentication required"):
            client.pull(image)
        with pytest.raises(ClientFailed, match="unauthorized: authentication required"):
            client.pull_as(image, "ci:wrong")
        client.pull_as(image, "ci:right")
        assert not client.expected(image) - client.hash_all(image)


@pytest.mark.clients
def test_containerd_logs_in_by_a_header(site: Site, tmp_path: Path) -> None:
    require_client(ContainerdAsUser)
    path = tmp_path / "htpasswd"
    write_accounts(path, ci="right")
    image = catalogue().pair
    with protect(site, path).start() as mirror:
        client = ContainerdAsUser(Sandbox(tmp_path / "state"), mirror.port)
        with client.running():
            with pytest.raises(ClientFailed):
                client.pull(image)
            client.log_in("ci", "right")
            client.pull(image)
            assert not client.expected(image) - client.hash_all(image)
