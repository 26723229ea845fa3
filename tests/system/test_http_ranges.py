"""Parts of blobs: of what is here, of what is arriving, of what is cold, and far ahead of it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from engine.fill import HELD_BACK_BYTES
from engine.names import Digest
from server.side import NEAR_BYTES
from tests.fakes.upstream import Fault, Gate
from tests.fakes.upstream_content import make_bytes
from tests.system.lab import Lab, run_lab
from tests.system.raw import Answer, read_answer
from tests.system.wire import connect, request

pytestmark = pytest.mark.system

KIB = 1024
SMALL, LARGE = 20_000, 300_000
VAST = NEAR_BYTES + 2_000_000

# What is asked for, and which part that is: (start, end), None = all of it, "416" = none.
RANGES = [
    ("bytes=0-0", (0, 1)),
    ("bytes=0-9", (0, 10)),
    ("bytes=100-", (100, None)),
    ("bytes=-7", (-7, None)),
    ("bytes=-999999999", (0, None)),
    ("bytes=100-999999999", (100, None)),
    ("Bytes=5-6", (5, 7)),
    ("bytes=999999999-", "416"),
    ("bytes=-0", "416"),
    ("bytes=0-1,5-6", None),
    ("bytes=9-5", None),
    ("bytes=", None),
    ("bytes=a-b", None),
    ("items=0-1", None),
    ("bytes 0-1", None),
    (f"bytes={'9' * 40}-", None),
]
Part = tuple[int, int | None] | str | None


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One mirror for all."""
    with run_lab(tmp_path_factory.mktemp("ranges")) as made:
        yield made


class Case:
    """A blob in a repository of its own, that a manifest names."""

    def __init__(self, lab: Lab, size_bytes: int) -> None:
        self.lab = lab
        self.repository = f"ranges/{lab.take_name()}"
        self.data = make_bytes(size_bytes, seed=int.from_bytes(self.repository.encode(), "big"))
        image = lab.upstream.content.add_image(self.repository, "1", (self.data,))
        self.digest: Digest = image.layers[0]
        self.path = f"/v2/{self.repository}/blobs/{self.digest}"
        assert lab.ask(f"/v2/{self.repository}/manifests/1").status == 200

    def ask(self, *, method: str = "GET", **headers: str) -> Answer:
        """Ask for the blob; `if_range` is If-Range."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.lab.ask(self.path, named, method)

    def asked(self) -> list[str | None]:
        """The Range of each request for the blob that upstream got."""
        seen = self.lab.upstream.seen(kind="blob", method="GET", repository=self.repository)
        return [request.header("range") for request in seen]

    @contextmanager
    def held(self, at: int, corrupt_at: int | None = None) -> Iterator[Gate]:
        """Start a fill and hold it when `at` bytes of it have arrived; then let it go on.

        The client that started it has gone by then, which is not to matter.
        """
        gate = Gate()
        fault = Fault(stall_at=at, gate=gate, corrupt_at=corrupt_at)
        self.lab.upstream.fail(fault, kind="blob", repository=self.repository)
        try:
            with self.lab.open(self.path) as response:
                self.lab.wait_at(gate)
                assert len(response.read(at - 1)) == at - 1
            yield gate
        finally:
            gate.open()


def assert_is_part(answer: Answer, case: Case, part: Part) -> None:
    size = len(case.data)
    assert not answer.is_cut
    if part == "416":
        assert (answer.status, answer.code) == (416, "RANGE_INVALID")
        assert answer.headers["content-range"] == f"bytes */{size}"
        return
    assert answer.headers["docker-content-digest"] == case.digest
    assert answer.headers["etag"] == f'"{case.digest}"'
    if part is None:
        assert (answer.status, answer.body) == (200, case.data)
        assert "content-range" not in answer.headers
        return
    assert isinstance(part, tuple)
    start, end, _ = slice(*part).indices(size)
    assert (answer.status, answer.body) == (206, case.data[start:end])
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
    assert answer.headers["content-length"] == str(end - start)


# Of what is here


@pytest.fixture(scope="module", params=[SMALL, LARGE], ids=["small", "large"])
def here(lab: Lab, request: pytest.FixtureRequest) -> Case:
    """A blob that is here; small ones are kept in memory."""
    case = Case(lab, request.param)
    assert case.ask().status == 200
    return case


@pytest.mark.parametrize(("asked", "part"), RANGES)
def test_a_part_of_what_is_here(here: Case, asked: str, part: Part) -> None:
    assert_is_part(here.ask(range=asked), here, part)
    assert here.asked() == [None]


@pytest.mark.parametrize("asked", ["bytes=0-9", "bytes=999999999-"])
def test_head_ignores_ranges(here: Case, asked: str) -> None:
    answer = here.ask(method="HEAD", range=asked)
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["content-length"] == str(len(here.data))


def test_if_range_that_holds_gives_a_part_and_else_all(here: Case) -> None:
    asked = "bytes=0-9"
    assert_is_part(here.ask(range=asked, if_range=f'"{here.digest}"'), here, (0, 10))
    for other in ('"sha256:other"', f'W/"{here.digest}"', "Thu, 01 Jan 2026 00:00:00 GMT"):
        assert_is_part(here.ask(range=asked, if_range=other), here, None)


def test_if_none_match_comes_before_a_range(here: Case) -> None:
    answer = here.ask(range="bytes=0-9", if_none_match=f'"{here.digest}"')
    assert answer.status == 304


def test_a_manifest_has_no_parts(here: Case) -> None:
    path = f"/v2/{here.repository}/manifests/1"
    whole = here.lab.ask(path)
    answer = here.lab.ask(path, {"Range": "bytes=0-1"})
    assert (answer.status, answer.body) == (200, whole.body)


# Of what is cold


@pytest.mark.parametrize("size_bytes", [SMALL, LARGE])
@pytest.mark.parametrize(("asked", "part"), RANGES)
def test_a_part_of_what_is_cold_and_all_of_it_is_kept(
    lab: Lab, size_bytes: int, asked: str, part: Part
) -> None:
    case = Case(lab, size_bytes)
    assert_is_part(case.ask(range=asked), case, part)
    assert_is_part(case.ask(), case, None)
    assert case.asked() == [None]


def test_a_part_of_a_blob_whose_size_nobody_tells(lab: Lab) -> None:
    case = Case(lab, SMALL)
    other = make_bytes(LARGE, seed=7)
    digest = lab.upstream.content.add_blob(case.repository, other)
    lab.upstream.fail(Fault(chunked=True), kind="blob", reference=digest)
    answer = lab.ask(f"/v2/{case.repository}/blobs/{digest}", {"Range": "bytes=-10"})
    assert (answer.status, answer.body) == (206, other[-10:])


# Of what is arriving


def test_a_part_that_has_arrived_leaves_while_the_rest_is_on_its_way(lab: Lab) -> None:
    case = Case(lab, LARGE)
    with case.held(at=200_000):
        assert_is_part(case.ask(range="bytes=0-9"), case, (0, 10))
        assert_is_part(case.ask(range="bytes=150000-199999"), case, (150_000, 200_000))
        assert case.asked() == [None]


@pytest.mark.parametrize("asked", ["bytes=999999999-", f"bytes={LARGE}-"])
def test_a_part_outside_is_refused_while_it_arrives(lab: Lab, asked: str) -> None:
    case = Case(lab, LARGE)
    with case.held(at=200_000):
        assert_is_part(case.ask(range=asked), case, "416")


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("bytes=100000-220000", (100_000, 220_001)),
        ("bytes=210000-", (210_000, None)),
        ("bytes=-7", (-7, None)),
        ("bytes=0-1,5-6", None),
    ],
)
def test_a_part_that_has_not_arrived_is_waited_for(lab: Lab, asked: str, part: Part) -> None:
    case = Case(lab, LARGE)
    with case.held(at=200_000) as gate, case.lab.open(case.path, {"Range": asked}) as response:
        assert response.status == (206 if part else 200)  # the head does not wait
        gate.open()
        assert_is_part(read_answer(response), case, part)
    assert case.asked() == [None]


def test_a_part_that_holds_the_end_is_cut_where_the_whole_is_wrong(lab: Lab) -> None:
    case = Case(lab, LARGE)
    asked = {"Range": f"bytes={LARGE - HELD_BACK_BYTES - 9}-"}
    with case.held(at=200_000, corrupt_at=0) as gate, case.lab.open(case.path, asked) as response:
        gate.open()
        answer = read_answer(response)
    assert (answer.status, answer.is_cut) == (206, True)
    assert len(answer.body) <= 9


# Far ahead of what has arrived

FAR = NEAR_BYTES + 1_000_000


def test_a_part_far_ahead_is_fetched_aside_while_the_fill_stands_still(lab: Lab) -> None:
    case = Case(lab, VAST)
    with case.held(at=100 * KIB) as gate:
        assert_is_part(case.ask(range=f"bytes={FAR}-{FAR + 99}"), case, (FAR, FAR + 100))
        assert case.asked() == [None, f"bytes={FAR}-{FAR + 99}"]
        gate.open()
        assert_is_part(case.ask(), case, None)
    assert len(case.asked()) == 2, "the part was not stored, and the fill fetched all"


def test_a_part_that_is_near_enough_waits_for_the_fill(lab: Lab) -> None:
    case = Case(lab, VAST)
    near = NEAR_BYTES + 50 * KIB
    asked = {"Range": f"bytes={near}-{near + 99}"}
    with case.held(at=100 * KIB) as gate, case.lab.open(case.path, asked) as response:
        gate.open()
        assert_is_part(read_answer(response), case, (near, near + 100))
    assert case.asked() == [None]


def test_the_end_of_a_part_far_ahead_waits_for_the_whole(lab: Lab) -> None:
    case = Case(lab, VAST)
    held_from = VAST - HELD_BACK_BYTES
    with case.held(at=100 * KIB) as gate, connect(lab.mirror.address) as wire:
        wire.send(request(case.path, f"Range: bytes={FAR}-", "Connection: close"))
        assert wire.receive_head().status == 206
        assert wire.receive_bytes(held_from - FAR) == case.data[FAR:held_from]
        gate.open()
        assert wire.receive_end() == case.data[held_from:]
    assert case.asked() == [None, f"bytes={FAR}-{held_from - 1}"]


def test_the_end_of_a_part_far_ahead_never_comes_where_the_whole_is_wrong(lab: Lab) -> None:
    case = Case(lab, VAST)
    with (
        case.held(at=100 * KIB, corrupt_at=0) as gate,
        case.lab.open(case.path, {"Range": f"bytes={FAR}-"}) as response,
    ):
        gate.open()
        answer = read_answer(response)
    assert (answer.status, answer.is_cut) == (206, True)
    assert case.data[FAR : VAST - HELD_BACK_BYTES].startswith(answer.body)  # a reset loses some


def test_a_part_far_ahead_that_cannot_be_had_comes_with_the_fill(lab: Lab) -> None:
    case = Case(lab, VAST)
    with case.held(at=100 * KIB) as gate:
        lab.upstream.fail(Fault(status=416), kind="blob", repository=case.repository)
        asked = {"Range": f"bytes={FAR}-{FAR + 99}"}
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(lab.ask, case.path, asked)
            lab.thread.run(
                lab.upstream.wait_until(
                    lambda: lab.upstream.count(kind="blob", repository=case.repository) == 2
                )
            )
            gate.open()
            assert_is_part(waiting.result(), case, (FAR, FAR + 100))
