"""The tools as processes, beside a mirror that serves: in a pipe, in a terminal, by other users."""

import http.client
import json
import os
import pty
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.names import Digest
from tests.fakes.damage import blob_path, flip_bit, kept_in_quarantine
from tests.fakes.mirror import PROGRAM, Mirror, Site, site_of
from tests.fakes.stocked import Stock, stock
from tests.fakes.upstream import ThreadedUpstream
from tests.fakes.upstream_content import Image, make_bytes
from tests.system.raw import ask
from tools.options import NotADataDirectory, become_owner

pytestmark = pytest.mark.system

REPOSITORY = "library/busy"
LARGE = make_bytes(64 * 1024 * 1024, seed=1)
SMALL = make_bytes(100_000, seed=2)
NOBODY = 65534


@pytest.fixture
def thread() -> Iterator[ThreadedUpstream]:
    with ThreadedUpstream() as upstream:
        yield upstream


@pytest.fixture
def image(thread: ThreadedUpstream) -> Image:
    return thread.upstream.content.add_image(REPOSITORY, "1", (LARGE, SMALL))


@pytest.fixture
def site(tmp_path: Path, thread: ThreadedUpstream, image: Image) -> Site:
    return site_of(tmp_path / "mirror", thread.upstream.url)


@pytest.fixture
def mirror(site: Site, image: Image) -> Iterator[Mirror]:
    """A mirror that has pulled the image."""
    with site.start() as mirror:
        assert ask(mirror.address, f"/v2/{REPOSITORY}/manifests/1").status == 200
        for digest in (image.config, *image.layers):
            assert pull(mirror, digest) == digest
        yield mirror


def blob_target(digest: str) -> str:
    return f"/v2/{REPOSITORY}/blobs/{digest}"


def pull(mirror: Mirror, digest: str) -> str:
    """Pull a blob until it is a hit, so that it is stored; return the digest of what came."""
    while True:
        answer = ask(mirror.address, blob_target(digest))
        if answer.headers["cache-status"] == "moorage; hit" or answer.status != 200:
            return answer.digest


def run(site: Site, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *arguments, "--config", site.directory / "config.yml"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def document(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_a_live_cache_is_inspected_and_verified(site: Site, mirror: Mirror, image: Image) -> None:
    summary = document(run(site, "inspect-index", "summary", "--json"))
    assert summary["server_pid"] == mirror.child.pid
    assert summary["blob_count"] == 4
    share = summary["hit_share"]
    assert isinstance(share, float)
    assert 0 < share < 1
    assert summary["answers_hit"] == 3
    assert run(site, "inspect-index", "check").stdout == ""
    assert document(run(site, "verify-digests", "--json"))["checked_count"] == 4
    explained = document(run(site, "inspect-index", "explain", f"{REPOSITORY}:1", "--json"))
    assert explained["digest"] == image.manifest
    assert pull(mirror, image.layers[1]) == image.layers[1]
    assert mirror.drain() == 0
    assert not (site.data / "control.sock").exists()


def test_quarantine_on_a_live_cache_stops_what_is_being_sent(
    site: Site, mirror: Mirror, image: Image
) -> None:
    damaged = image.layers[0]
    connection = http.client.HTTPConnection(mirror.address, timeout=60)
    connection.request("GET", blob_target(damaged))
    response = connection.getresponse()
    received = len(response.read(1024))
    flip_bit(blob_path(site.data, damaged), len(LARGE) - 1)
    done = run(site, "verify-digests", "--quarantine")
    assert done.returncode == 1
    assert done.stdout.startswith(f"damaged\t{damaged}\t{blob_path(site.data, damaged)}\t")
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        received += len(response.read())
    assert received < len(LARGE)
    connection.close()
    assert kept_in_quarantine(site.data) == [f"sha256-{damaged.removeprefix('sha256:')}"]
    # The next one gets it from upstream, right.
    answer = ask(mirror.address, blob_target(damaged))
    assert answer.headers["cache-status"].startswith("moorage; fwd=uri-miss")
    assert answer.digest == damaged
    assert run(site, "verify-digests").returncode == 0


def test_a_purge_on_a_live_cache_takes_effect_at_once(
    site: Site, mirror: Mirror, image: Image, thread: ThreadedUpstream
) -> None:
    thread.upstream.requests.clear()
    dry = document(run(site, "purge", f"{REPOSITORY}:1", "--dry-run", "--json"))
    assert dry["blob_count"] == 4
    assert pull(mirror, image.layers[1]) == image.layers[1]
    assert thread.upstream.count(kind="blob") == 0
    assert document(run(site, "purge", f"{REPOSITORY}:1", "--json"))["blobs"] == dry["blobs"]
    assert not list((site.data / "blobs").rglob("*/??/*"))
    assert pull(mirror, image.layers[1]) == image.layers[1]
    assert thread.upstream.count(kind="blob") == 1


def test_pins_set_on_a_live_cache_outlive_it(site: Site, mirror: Mirror) -> None:
    assert "outcome\tpinned\n" in run(site, "pin", "docker.io/library/*:1").stdout
    assert mirror.drain() == 0
    assert "outcome\tpinned already\n" in run(site, "pin", "docker.io/library/*:1").stdout


def test_rebuild_refuses_while_a_server_runs_and_names_it(site: Site, mirror: Mirror) -> None:
    refused = run(site, "inspect-index", "rebuild")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert f"pid {mirror.child.pid}" in refused.stderr


def test_where_the_server_does_not_listen_the_tool_names_its_pid(
    site: Site, mirror: Mirror
) -> None:
    (site.data / "control.sock").unlink()
    refused = run(site, "purge", REPOSITORY)
    assert refused.returncode == 2
    assert f"pid {mirror.child.pid}" in refused.stderr


@pytest.fixture
def stocked(tmp_path: Path) -> Stock:
    return stock(tmp_path / "data")


def run_in_terminal(*arguments: str | Path, columns: int = 80) -> str:
    """Run with standard output and error at a terminal; return what it shows, without colours."""
    ours, theirs = pty.openpty()
    environ = os.environ | {"TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "50"}
    child = subprocess.Popen([PROGRAM, *arguments], stdout=theirs, stderr=theirs, env=environ)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:
        pass  # what Linux says at the end of a terminal
    finally:
        os.close(ours)
    assert child.wait(60) == 0, shown
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())


def test_in_a_terminal_there_is_a_table_with_units(stocked: Stock) -> None:
    command = ("inspect-index", "blobs", "--data", stocked.path)
    lines = run_in_terminal(*command, columns=200).splitlines()
    assert lines[2].split()[:3] == ["Digest", "Size", "Kind"]
    assert {line.split()[0] for line in lines[4:] if line.strip()} == stocked.all_digests()
    assert any("29.3 KiB" in line for line in lines)


def test_in_a_narrow_terminal_nothing_is_cut(stocked: Stock) -> None:
    shown = run_in_terminal("inspect-index", "blobs", "--data", stocked.path, columns=60)
    assert "…" not in shown
    letters = sum(line.count("a") for line in shown.splitlines())
    assert letters >= sum(digest.count("a") for digest in stocked.all_digests())


def test_in_a_terminal_a_sound_cache_is_called_so(stocked: Stock) -> None:
    assert (
        run_in_terminal("inspect-index", "check", "--data", stocked.path).strip() == "no findings"
    )


def test_in_a_terminal_verifying_shows_its_progress(stocked: Stock) -> None:
    shown = run_in_terminal("verify-digests", "--data", stocked.path)
    assert "verifying" in shown
    assert "13 blobs" in shown
    assert "0 wrong" in shown


def test_an_interrupted_run_ends_at_once_and_says_how_to_go_on(stocked: Stock) -> None:
    endless = blob_path(stocked.path, Digest(f"sha256:{'f' * 64}"))
    endless.parent.mkdir(exist_ok=True)
    endless.touch()
    os.truncate(endless, 64 * 1024**3)  # without a block: it takes no room, but a minute to read
    ours, theirs = pty.openpty()
    command = [str(PROGRAM), "verify-digests", "--data", str(stocked.path)]
    child = subprocess.Popen(command, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    shown = b""
    while b"verifying" not in shown:
        shown += os.read(ours, 65536)
    child.send_signal(signal.SIGINT)
    assert child.wait(30) == 130
    os.close(ours)
    state = json.loads((stocked.path / "verify.state").read_bytes())
    assert state["after"] < f"sha256:{endless.name}"
    endless.unlink()
    resumed = subprocess.run([*command, "--resume", "--json"], capture_output=True, timeout=60)
    assert json.loads(resumed.stdout)["checked_count"] == len(stocked.all_digests())


def test_piped_output_has_no_escapes_and_one_line_each(stocked: Stock) -> None:
    shown = subprocess.run(
        [PROGRAM, "inspect-index", "blobs", "--data", stocked.path],
        capture_output=True,
        check=True,
        timeout=60,
        env=os.environ | {"COLUMNS": "40", "FORCE_COLOR": "1"},
    ).stdout
    assert b"\x1b" not in shown
    assert len(shown.splitlines()) == len(stocked.all_digests())


def test_a_reader_that_closes_the_pipe_early_sees_no_traceback(stocked: Stock) -> None:
    child = subprocess.Popen(
        [PROGRAM, "inspect-index", "blobs", "--data", stocked.path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout is not None
    child.stdout.close()
    assert child.stderr is not None
    with child.stderr as stderr:
        assert b"Traceback" not in stderr.read()
    child.wait(60)


def hand_over(path: Path, uid: int) -> None:
    """Make `path` and all below it another user's, and let that user reach it."""
    for parent in path.parents:
        if parent.stat().st_uid == os.geteuid() and parent.is_relative_to("/tmp"):
            parent.chmod(0o755)
    for each in (path, *path.rglob("*")):
        os.chown(each, uid, uid)


@pytest.mark.skipif(os.geteuid() != 0, reason="not run: only root can act as another user")
def test_root_acts_as_the_owner_and_leaves_no_file_of_its_own(stocked: Stock) -> None:
    hand_over(stocked.path, NOBODY)
    for command in (["inspect-index", "summary"], ["verify-digests"], ["purge", "busybox"]):
        subprocess.run(
            [PROGRAM, *command, "--data", stocked.path],
            check=True,
            capture_output=True,
            timeout=60,
        )
    assert {path.stat().st_uid for path in stocked.path.rglob("*")} == {NOBODY}


@pytest.mark.skipif(os.geteuid() != 0, reason="not run: only root can act as another user")
def test_another_user_is_refused_and_told_whom_to_be(stocked: Stock) -> None:
    hand_over(stocked.path, os.geteuid())
    before = sorted(stocked.path.iterdir())
    pid = os.fork()
    if pid == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        try:
            become_owner(stocked.path)
        except NotADataDirectory as exc:
            os._exit(7 if "run this as root: sudo -u root" in str(exc) else 8)
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert sorted(stocked.path.iterdir()) == before


def test_verifying_beside_a_server_that_evicts_finds_nothing(
    tmp_path: Path, thread: ThreadedUpstream
) -> None:
    """Blobs come and go all the while, within a budget that holds a few of them."""
    site = site_of(tmp_path / "mirror", thread.upstream.url)
    site.config["eviction"] = {"maxsize": "2MB", "minfree": "0%", "interval": "100ms"}
    digests = [
        thread.upstream.content.add_blob(REPOSITORY, make_bytes(100_000, seed=seed))
        for seed in range(10, 110)
    ]
    with site.start() as mirror:
        churning = threading.Thread(
            target=lambda: [ask(mirror.address, blob_target(digest)) for digest in digests]
        )
        churning.start()
        results = []
        while churning.is_alive():
            results.append(run(site, "verify-digests", "--json"))
            results.append(run(site, "inspect-index", "check", "--json"))
        churning.join()
        results.append(run(site, "verify-digests", "--json"))
    for done in results:
        assert (done.returncode, json.loads(done.stdout)["findings"]) == (0, [])
    assert len(list((site.data / "blobs").rglob("*/??/*"))) < len(digests)
