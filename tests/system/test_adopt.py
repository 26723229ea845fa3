"""What a real registry in proxy mode has stored is served by the mirror that adopted it."""

import json
import os
import pty
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes.child import Child, clean_environment
from tests.fakes.clients import Sandbox
from tests.fakes.clients_containers import SkopeoByAddress
from tests.fakes.damage import iter_blob_files
from tests.fakes.distribution import Registry, proxy_config, run_registry
from tests.fakes.images import Image
from tests.fakes.images_catalogue import catalogue
from tests.fakes.mirror import PROGRAM, Site, site_of
from tests.fakes.registry_storage import (
    Storage,
    digests_of,
    pull_all,
    wait_until_stored,
)
from tests.system.conftest import PASSWORD, USER, require_client
from tests.system.raw import ask

pytestmark = pytest.mark.system

NOWHERE = "http://127.0.0.1:1"


def images() -> list[Image]:
    return [catalogue().busy, catalogue().multi, catalogue().private]


@pytest.fixture(scope="module")
def storage(upstream: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    """What a docker-registry has stored that mirrors the upstream, and was stopped."""
    directory = tmp_path_factory.mktemp("old")
    found = Storage(directory / "registry" / "data")
    config = proxy_config(upstream.url, USER, PASSWORD)
    with run_registry(directory / "registry", config) as proxy:
        for image in images():
            pull_all(proxy.address, image)
        wait_until_stored(found, proxy, images())
    yield found
    shutil.rmtree(directory)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A mirror whose upstream is not there."""
    return site_of(tmp_path / "mirror", NOWHERE, USER, PASSWORD)


@dataclass(frozen=True, slots=True)
class Done:
    """How an adoption ended."""

    code: int
    report: dict[str, object]
    stderr: str


def adopt(storage: Storage, site: Site, *options: str) -> Done:
    done = subprocess.run(
        [PROGRAM, "adopt", storage.directory, "--data", site.data, "--json", *options],
        env=clean_environment(site.directory),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "Traceback" not in done.stderr
    return Done(done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr)


def test_what_the_registry_had_is_pulled_with_the_upstream_gone(
    storage: Storage, site: Site
) -> None:
    before = storage.snapshot()
    done = adopt(storage, site)
    assert done.code == 0, done.stderr
    assert done.stderr == ""
    everything = set().union(*map(digests_of, images()))
    assert done.report["taken_count"] == len(everything)
    assert (done.report["tag_count"], done.report["repository_count"]) == (3, 3)
    assert storage.snapshot() == before
    with site.start() as mirror:
        for image in images():
            pull_all(mirror.address, image)
        stale = ask(mirror.address, "/v2/library/busy/manifests/1.35")
        assert "last checked before it was taken over" in stale.headers["warning"]
        by_digest = f"/v2/library/busy/manifests/{catalogue().busy.top.blob.digest}"
        assert ask(mirror.address, by_digest).headers["cache-status"] == "moorage; hit"


@pytest.mark.clients
def test_a_real_client_pulls_what_was_adopted(storage: Storage, site: Site, tmp_path: Path) -> None:
    require_client(SkopeoByAddress)
    assert adopt(storage, site).code == 0
    with site.start() as mirror:
        client = SkopeoByAddress(Sandbox(tmp_path / "state"), mirror.port)
        for image in images():
            client.pull(image)
            assert not client.expected(image) - client.hash_all(image)


def test_what_one_repository_was_served_is_no_others(storage: Storage, site: Site) -> None:
    assert adopt(storage, site).code == 0
    (layer, *_) = catalogue().private.host_manifest.layers
    with site.start() as mirror:
        answer = ask(mirror.address, f"/v2/library/busy/blobs/{layer.blob.digest}")
        assert answer.status == 503  # upstream would have to be asked


def test_upstream_is_asked_first_while_it_is_there(
    storage: Storage, upstream: Registry, tmp_path: Path
) -> None:
    site = site_of(tmp_path / "mirror", upstream.url, USER, PASSWORD)
    assert adopt(storage, site).code == 0
    before = upstream.counts()
    with site.start() as mirror:
        pull_all(mirror.address, catalogue().busy)
    asked = upstream.counts() - before
    assert set(asked) == {("HEAD", "/v2/library/busy/manifests/1.35")}


def test_killed_at_any_moment_the_same_command_goes_on(storage: Storage, site: Site) -> None:
    argv = [str(PROGRAM), "adopt", str(storage.directory), "--data", str(site.data)]
    blobs = site.data / "blobs"
    with Child(argv, env=clean_environment(site.directory), log=site.directory / "log") as child:
        child.wait_until(lambda: blobs.is_dir() and any(iter_blob_files(site.data)))
        child.kill()
    done = adopt(storage, site)
    assert done.code == 0
    everything = set().union(*map(digests_of, images()))
    assert len(list(iter_blob_files(site.data))) == len(everything)
    assert list((site.data / "partial").iterdir()) == []
    again = adopt(storage, site).report
    assert (again["taken_count"], again["present_count"]) == (0, len(everything))
    with site.start() as mirror:
        for image in images():
            pull_all(mirror.address, image)


def test_a_running_mirror_is_left_alone(storage: Storage, site: Site) -> None:
    with site.start() as mirror:
        done = adopt(storage, site)
        assert done.code == 2
        assert f"in use by the server with pid {mirror.child.pid}" in done.stderr


def test_the_registrys_own_directory_becomes_the_mirrors(storage: Storage, tmp_path: Path) -> None:
    """The same config.yml, with the same rootdirectory, as the registry had."""
    site = site_of(tmp_path / "mirror", NOWHERE)
    shutil.copytree(storage.directory, site.data)
    done = adopt(Storage(site.data), site)
    assert done.code == 0, done.stderr
    with site.start() as mirror:
        pull_all(mirror.address, catalogue().busy)


def test_in_a_terminal_it_shows_how_far_it_is(storage: Storage, site: Site) -> None:
    ours, theirs = pty.openpty()
    argv = [str(PROGRAM), "adopt", str(storage.directory), "--data", str(site.data)]
    child = subprocess.Popen(argv, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:
        pass  # Linux's word for the end of a terminal
    finally:
        os.close(ours)
    assert child.wait(60) == 0
    assert b"adopting" in shown
    assert b"100%" in shown or b"/s" in shown
    assert b"Blobs taken" in shown


def test_interrupted_it_says_how_to_go_on(site: Site, tmp_path: Path) -> None:
    endless = Storage(tmp_path / "endless")
    endless.add_schedule()
    digest = endless.add_layer("library/endless", b"")
    os.truncate(endless.blob(digest), 64 * 1024**3)  # without a block: a minute's reading
    argv = [str(PROGRAM), "adopt", str(endless.directory), "--data", str(site.data)]
    options = ["--mode", "hardlink"]
    with Child(
        [*argv, *options], env=clean_environment(site.directory), log=site.directory / "log"
    ) as child:
        partial = site.data / "partial"
        child.wait_until(lambda: partial.is_dir() and any(partial.iterdir()))
        child.signal(signal.SIGINT)
        assert child.wait() == 130
    assert "broken off; the same command goes on" in str(child)
    assert list(partial.iterdir()) == []
