"""`warm`, `status`, `top` and `drain` against a running mirror, in a pipe and in a terminal."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fakes.child import clean_environment
from tests.fakes.mirror import PROGRAM, Mirror, Site, site_of
from tests.fakes.upstream import Fault, Gate, ThreadedUpstream
from tests.fakes.upstream_content import Image, make_bytes
from tests.system.wire import connect, request

pytestmark = pytest.mark.system

TOKEN = "0123456789abcdef-token"
BUSYBOX = "library/busybox"
LAYER = make_bytes(300_000)
_PATIENCE_S = 60.0


@pytest.fixture
def upstream() -> Iterator[ThreadedUpstream]:
    with ThreadedUpstream() as upstream:
        yield upstream


@pytest.fixture
def image(upstream: ThreadedUpstream) -> Image:
    return upstream.upstream.content.add_image(BUSYBOX, "1", (LAYER, b"small"))


@pytest.fixture
def site(tmp_path: Path, upstream: ThreadedUpstream) -> Site:
    site = site_of(tmp_path / "mirror", upstream.upstream.url, namespaces=["docker.io"])
    debug = {"addr": "127.0.0.1:0", "token": TOKEN}
    site.config["http"] = {"addr": "127.0.0.1:0", "debug": debug}
    return site


def run(
    site: Site, *words: str | Path, code: int = 0, by: Sequence[str | Path] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a command on the site's data, or `by` other options."""
    done = subprocess.run(
        [PROGRAM, *words, *(by or ("--data", site.data))],
        env=clean_environment(site.directory),
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def debug_url(mirror: Mirror) -> str:
    address = mirror.child.wait_for(r"debug port open addr=(\S+)")[1]
    return f"http://{address}"


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, process: subprocess.Popen[bytes], fd: int) -> None:
        self.process = process
        self.fd = fd
        self.shown = ""

    def wait_for(self, part: str) -> None:
        """Read until `part` was shown."""
        until = time.monotonic() + _PATIENCE_S
        while part not in self.shown:
            left_s = until - time.monotonic()
            assert select.select([self.fd], [], [], max(left_s, 0))[0], self.shown
            assert self.read(), self.shown

    def read(self) -> bool:
        """Read some; False at the end."""
        try:
            piece = os.read(self.fd, 65536).decode(errors="replace")
        except OSError:  # how Linux says that the other side has closed
            return False
        self.shown += piece
        return bool(piece)

    def finish(self) -> int:
        """Read to the end; give the exit code."""
        while self.read():
            pass
        return self.process.wait(_PATIENCE_S)


@contextmanager
def terminal(site: Site, *words: str) -> Iterator[Terminal]:
    """Run a command in a terminal while the block lasts."""
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [PROGRAM, *words, "--data", site.data],
        env=clean_environment(site.directory, TERM="xterm-256color", COLUMNS="100", LINES="40"),
        stdin=its, stdout=its, stderr=its, start_new_session=True,
    )  # fmt: skip
    os.close(its)
    try:
        yield Terminal(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_what_was_warmed_is_a_hit_while_upstream_is_down(
    site: Site, upstream: ThreadedUpstream, image: Image
) -> None:
    with site.start() as mirror:
        first = run(site, "warm", "library/busybox:1")
        total_bytes = len(LAYER) + len(b"small") + len(b"{}")
        assert first.stdout == f"done\tlibrary/busybox:1\t3\t{total_bytes}\t{total_bytes}\t-\n"
        again = run(site, "warm", "docker.io/library/busybox:1", "--json")
        (ended,) = json.loads(again.stdout)["images"]
        assert ended["hit_bytes"] == ended["total_bytes"] == total_bytes
        assert upstream.upstream.count(kind="blob") == 3
        upstream.upstream.fail(Fault(drop=True), times=None)
        with connect(mirror.address) as wire:
            wire.send(request(f"/v2/{BUSYBOX}/blobs/{image.layers[0]}"))
            response = wire.receive()
        assert response.headers["cache-status"] == "moorage; hit"
        assert response.body == LAYER


def test_a_list_is_warmed_and_what_fails_is_listed_with_exit_code_1(
    site: Site, image: Image, tmp_path: Path
) -> None:
    listed = tmp_path / "list"
    listed.write_text("# ours\nlibrary/busybox:1  # the shell\n\nlibrary/nothing:1\n")
    with site.start():
        done = run(site, "warm", "-f", str(listed), code=1)
    assert "done\tlibrary/busybox:1\t" in done.stdout
    assert re.search(r"^error: library/nothing:1: .* answered 404$", done.stderr, re.MULTILINE)


def test_an_interrupted_warm_is_gone_on_with(
    site: Site, upstream: ThreadedUpstream, image: Image
) -> None:
    gate = Gate()
    stalled = Fault(stall_at=200_000, gate=gate)
    upstream.upstream.fail(stalled, kind="blob", reference=image.layers[0])
    with site.start():
        with terminal(site, "warm", "library/busybox:1") as shown:
            shown.wait_for("running")
            upstream.run(gate.wait_reached())
            shown.process.send_signal(signal.SIGINT)
            assert shown.finish() == 130
        assert "interrupted: what was fetched is kept" in shown.shown
        gate.open()
        assert run(site, "warm", "library/busybox:1").stdout.startswith("done\t")
    assert upstream.upstream.count(kind="blob", reference=image.layers[0]) == 1


def test_in_a_terminal_a_warm_shows_bars(site: Site, image: Image) -> None:
    with site.start(), terminal(site, "warm", "library/busybox:1") as shown:
        assert shown.finish() == 0
    assert "library/busybox:1" in shown.shown
    assert "━" in shown.shown


def test_status_is_lines_json_and_tables(site: Site, image: Image) -> None:
    with site.start() as mirror:
        run(site, "warm", "library/busybox:1")
        lines = run(site, "status").stdout.splitlines()
        assert f"clients_at\t{mirror.url}" in lines
        assert "upstreams\tdocker.io\tok\t-\t-\t5\t1" in lines
        facts = json.loads(run(site, "status", "--json").stdout)
        assert facts["server"]["pid"] == mirror.child.pid
        with terminal(site, "status") as shown:
            assert shown.finish() == 0
        assert "Budget" in shown.shown


def test_top_shows_lines_in_a_pipe_and_is_left_by_q(site: Site) -> None:
    with site.start():
        done = run(site, "top", "--count", "2")
        assert [line.split("\t")[1] for line in done.stdout.splitlines()] == ["state=ready"] * 2
        with terminal(site, "top") as shown:
            shown.wait_for("q quits")
            os.write(shown.fd, b"q")
            assert shown.finish() == 0


@contextmanager
def drain_beside_download(
    site: Site, upstream: ThreadedUpstream, image: Image
) -> Iterator[tuple[Mirror, Terminal]]:
    """Drain while a download stalls; behind the block it goes on, and all of it must come."""
    gate = Gate()
    upstream.upstream.fail(Fault(stall_at=200_000, gate=gate), kind="blob")
    with site.start() as mirror, connect(mirror.address) as wire:
        wire.send(request(f"/v2/{BUSYBOX}/blobs/{image.layers[0]}"))
        head = wire.receive_head()
        with terminal(site, "drain") as shown:
            shown.wait_for("1 connections left")
            yield mirror, shown
            gate.open()
            assert wire.receive_body(head) == LAYER
            assert shown.finish() == 0
        assert mirror.child.wait() == 0


def test_top_waits_for_a_mirror_that_restarts(site: Site) -> None:
    with site.start() as mirror, terminal(site, "top") as shown:
        shown.wait_for("ready")
        mirror.drain()
        shown.wait_for("not reachable since")
        shown.process.send_signal(signal.SIGINT)
        assert shown.finish() == 0


def test_drain_finishes_what_is_under_way_and_sees_the_end(
    site: Site, upstream: ThreadedUpstream, image: Image
) -> None:
    with (
        drain_beside_download(site, upstream, image) as (mirror, shown),
        connect(debug_url(mirror).removeprefix("http://")) as probe,
    ):
        probe.send(request("/readyz"))
        assert probe.receive().status == 503
    assert "ended" in shown.shown


def test_a_first_signal_after_a_drain_cuts_nothing(
    site: Site, upstream: ThreadedUpstream, image: Image
) -> None:
    """An orchestrator sends it when its hook before the stop has drained."""
    with drain_beside_download(site, upstream, image) as (mirror, _):
        mirror.child.signal(signal.SIGTERM)
        mirror.child.wait_for("signal name=SIGTERM")


def test_another_machines_mirror_is_reached_by_its_url_and_token(
    site: Site, image: Image, tmp_path: Path
) -> None:
    token, wrong = tmp_path / "token", tmp_path / "wrong"
    token.write_text(f"{TOKEN}\n")
    wrong.write_text("a wrong token")
    with site.start() as mirror:
        here = ("--url", debug_url(mirror))
        facts = json.loads(run(site, "status", "--json", by=here).stdout)
        assert facts["server"]["state"] == "ready"
        assert "is needed" in run(site, "drain", by=here, code=1).stderr
        assert "not the operator's token" in run(
            site, "drain", by=(*here, "--token-file", wrong), code=1
        ).stderr  # fmt: skip
        warmed = run(site, "warm", "library/busybox:1", by=(*here, "--token-file", token))
        assert warmed.stdout.startswith("done\t")
        run(site, "drain", by=(*here, "--token-file", token))
        assert mirror.child.wait() == 0
        assert "nobody listens there" in run(site, "status", by=here, code=1).stderr


@pytest.mark.parametrize("command", [["status"], ["top"], ["drain"], ["warm", "busybox"]])
def test_without_a_server_it_says_so(site: Site, command: list[str]) -> None:
    (site.data / "blobs").mkdir(parents=True)
    assert f"no server runs on {site.data}" in run(site, *command, code=1).stderr


@pytest.mark.parametrize(
    ("command", "part"),
    [
        (["warm"], "name what to warm"),
        (["warm", "busybox", "--platform", "amd64"], "no platform"),
        (["warm", "busybox", "--platform", "linux/amd64", "--all-platforms"], "exclude"),
        (["status", "--token-file", "/dev/null"], "--token-file is for --url"),
        (["status", "--url", "http://x"], "another way"),
        (["top", "--count", "0"], "--count"),
    ],
)
def test_wrong_usage_is_2(site: Site, command: list[str], part: str) -> None:
    (site.data / "blobs").mkdir(parents=True)
    assert part in run(site, *command, code=2).stderr
