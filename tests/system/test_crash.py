"""kill -9 anywhere, two servers on one directory, SIGTERM under load, a start without upstream.

After each of them the mirror starts without help and serves only right bytes.
"""

import http.client
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fakes.images import sha256_of
from tests.fakes.mirror import Mirror, Site, site_of
from tests.fakes.upstream import Fault, Gate, ScriptedUpstream, ThreadedUpstream
from tests.fakes.upstream_content import Image, make_bytes
from tests.system.raw import ask

pytestmark = pytest.mark.system

REPOSITORY = "library/busy"
SIZE_BYTES = 16 * 1024 * 1024
HELD_BACK_BYTES = 64 * 1024
LAYER = make_bytes(SIZE_BYTES, seed=1)


@pytest.fixture
def thread() -> Iterator[ThreadedUpstream]:
    """An upstream that can be made to stall."""
    with ThreadedUpstream() as upstream:
        yield upstream


@pytest.fixture
def image(thread: ThreadedUpstream) -> Image:
    """An image with one large layer."""
    return thread.upstream.content.add_image(REPOSITORY, "1", (LAYER,))


@pytest.fixture
def scripted_site(tmp_path: Path, thread: ThreadedUpstream) -> Site:
    """An empty mirror of that upstream, not started yet."""
    return site_of(tmp_path / "mirror", thread.upstream.url)


def blob_target(image: Image) -> str:
    return f"/v2/{REPOSITORY}/blobs/{image.layers[0]}"


def warm(mirror: Mirror, image: Image) -> None:
    """Fetch the whole image."""
    assert ask(mirror.address, f"/v2/{REPOSITORY}/manifests/1").status == 200
    assert ask(mirror.address, blob_target(image)).status == 200


@contextmanager
def stalled_client(
    mirror: Mirror, image: Image, upstream: ScriptedUpstream, stall_at: int
) -> Iterator[tuple[http.client.HTTPResponse, Gate]]:
    """Start a download that upstream holds up at `stall_at`, until the gate is opened."""
    gate = Gate()
    upstream.fail(Fault(stall_at=stall_at, gate=gate), method="GET", kind="blob")
    connection = http.client.HTTPConnection(mirror.address, timeout=60)
    try:
        connection.request("GET", blob_target(image))
        yield connection.getresponse(), gate
    finally:
        gate.open()
        connection.close()


def kill_during_fill(
    mirror: Mirror, image: Image, upstream: ScriptedUpstream, stall_at: int
) -> int:
    """Kill the mirror in the middle of a fill; return how many bytes it had surely written.

    What a client has received was on disk before.
    """
    with stalled_client(mirror, image, upstream, stall_at) as (response, _):
        received = response.read(min(stall_at, SIZE_BYTES - HELD_BACK_BYTES) // 2)
        mirror.child.kill()
    assert LAYER.startswith(received)
    return len(received)


def ranges_asked(upstream: ScriptedUpstream) -> list[tuple[int, int]]:
    """List first and last byte of the ranges that upstream was asked for."""
    headers = [seen.header("range") or "" for seen in upstream.seen(method="GET", kind="blob")]
    found = [re.fullmatch(r"bytes=(\d+)-(\d+)", header) for header in headers]
    return [(int(match[1]), int(match[2])) for match in found if match]


@pytest.mark.parametrize("stall_at", [1024 * 1024, SIZE_BYTES // 2, SIZE_BYTES - 1])
def test_a_fill_that_was_killed_is_resumed_by_range(
    scripted_site: Site, thread: ThreadedUpstream, image: Image, stall_at: int
) -> None:
    with scripted_site.start() as mirror:
        written = kill_during_fill(mirror, image, thread.upstream, stall_at)
    assert any((scripted_site.data / "partial").iterdir())
    with scripted_site.start() as mirror:
        answer = ask(mirror.address, blob_target(image))
    assert (answer.status, answer.digest) == (200, image.layers[0])
    ((start, end),) = ranges_asked(thread.upstream)
    assert written <= start <= stall_at
    assert end == SIZE_BYTES - 1


def test_a_partial_that_rotted_is_never_served(
    scripted_site: Site, thread: ThreadedUpstream, image: Image
) -> None:
    with scripted_site.start() as mirror:
        kill_during_fill(mirror, image, thread.upstream, SIZE_BYTES // 2)
    flip_first_byte(scripted_site.data / "partial")
    with scripted_site.start() as mirror:
        # The rot shows when all is there: the first client is cut at the latest then.
        first = ask(mirror.address, blob_target(image))
        second = ask(mirror.address, blob_target(image))
    assert first.status != 200 or first.is_cut or first.digest == image.layers[0]
    assert (second.status, second.is_cut, second.digest) == (200, False, image.layers[0])


def flip_first_byte(directory: Path) -> None:
    """Damage the largest file, as a failing disk would."""
    largest = max(directory.rglob("*"), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[0] ^= 1
    largest.chmod(0o644)
    largest.write_bytes(data)


def test_a_mirror_killed_when_all_is_served_starts_and_serves_the_same(
    scripted_site: Site, thread: ThreadedUpstream, image: Image
) -> None:
    with scripted_site.start() as mirror:
        warm(mirror, image)
        mirror.child.kill()
    with scripted_site.start() as mirror:
        answer = ask(mirror.address, blob_target(image))
    assert (answer.status, answer.digest) == (200, image.layers[0])
    # Either the commit was done or the partial held nearly everything.
    assert all(start >= SIZE_BYTES // 2 for start, _ in ranges_asked(thread.upstream))
    assert len(thread.upstream.seen(method="GET", kind="blob")) <= 2


def test_a_lost_index_costs_no_download(
    scripted_site: Site, thread: ThreadedUpstream, image: Image
) -> None:
    with scripted_site.start() as mirror:
        warm(mirror, image)
        mirror.child.kill()
    for file in scripted_site.data.glob("index.*"):
        file.unlink()
    with scripted_site.start() as mirror:
        warm(mirror, image)
        answer = ask(mirror.address, blob_target(image))
    assert answer.digest == image.layers[0]
    assert len(thread.upstream.seen(method="GET", kind="blob")) == 1


def test_a_second_server_on_a_directory_exits_2_and_names_the_first(scripted_site: Site) -> None:
    with scripted_site.start() as first, scripted_site.spawn() as second:
        assert second.wait() == 2
        assert str(first.child.pid) in str(second)
        assert ask(first.address, "/v2/").status == 200


def test_the_directory_of_a_killed_server_can_be_used_at_once(scripted_site: Site) -> None:
    with scripted_site.start() as mirror:
        mirror.child.kill()
    with scripted_site.start() as mirror:
        assert ask(mirror.address, "/v2/").status == 200


def test_sigterm_lets_a_download_finish_and_exits_0(
    scripted_site: Site, thread: ThreadedUpstream, image: Image
) -> None:
    with scripted_site.start() as mirror:
        with stalled_client(mirror, image, thread.upstream, SIZE_BYTES // 2) as (response, gate):
            head = response.read(1024)
            mirror.child.signal(signal.SIGTERM)
            wait_until_refused(mirror)
            gate.open()
            assert sha256_of(head + response.read()) == image.layers[0]
        assert mirror.child.wait() == 0


def wait_until_refused(mirror: Mirror) -> None:
    """Wait until the mirror has stopped accepting connections."""
    while True:
        try:
            ask(mirror.address, "/v2/")
        except ConnectionError:
            return


def test_an_idle_mirror_stops_at_once_with_0(scripted_site: Site, image: Image) -> None:
    with scripted_site.start() as mirror:
        warm(mirror, image)
        assert mirror.drain() == 0


def test_a_mirror_starts_and_serves_from_disk_while_upstream_is_down(
    scripted_site: Site, thread: ThreadedUpstream, image: Image
) -> None:
    with scripted_site.start() as mirror:
        warm(mirror, image)
        assert mirror.drain() == 0
    thread.run(thread.upstream.stop())
    with scripted_site.start() as mirror:
        manifest = ask(mirror.address, f"/v2/{REPOSITORY}/manifests/{image.manifest}")
        blob = ask(mirror.address, blob_target(image))
        tag = ask(mirror.address, f"/v2/{REPOSITORY}/manifests/1")
    assert (manifest.status, manifest.body) == (200, image.body)
    assert (blob.status, blob.digest) == (200, image.layers[0])
    assert (tag.status, tag.body) == (200, image.body)
    assert "warning" in tag.headers


def test_clients_that_are_cut_by_a_kill_never_hold_a_whole_wrong_blob(
    scripted_site: Site, thread: ThreadedUpstream, image: Image
) -> None:
    gate = Gate()
    fault = Fault(stall_at=SIZE_BYTES - 1, gate=gate)
    thread.upstream.fail(fault, method="GET", kind="blob")
    with scripted_site.start() as mirror, ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, mirror.address, blob_target(image)) for _ in range(8)]
        thread.run(thread.upstream.wait_sent(SIZE_BYTES - 1))
        mirror.child.kill()
        # A client that had no head yet sees a reset instead of a short body.
        answers = [task.result() for task in asked if task.exception() is None]
    gate.open()
    assert answers
    assert all(answer.is_cut for answer in answers)
