"""Blobs that upstream keeps elsewhere: targets of redirects that expire, refuse and fail."""

from collections.abc import Iterator

import pytest

from tests.fakes.upstream import Fault, Gate
from tests.fakes.upstream_content import make_bytes
from tests.system.lab import Lab, message_of, run_lab
from tests.system.raw import Answer

pytestmark = pytest.mark.system

SIZE_BYTES = 300_000
USER, PASSWORD = "ci", "for upstream alone"
EXPIRED = Fault(status=403)
CHALLENGE = Fault(status=401, headers={"WWW-Authenticate": 'Basic realm="storage"'})


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A mirror with credentials, of an upstream that redirects every blob to its CDN.

    The CDN answers 400 to whoever shows it a credential.
    """
    directory = tmp_path_factory.mktemp("redirects")
    with run_lab(directory, username=USER, password=PASSWORD) as made:
        made.upstream.auth.require_basic(**{USER: PASSWORD})
        made.upstream.redirect_blobs = 307
        yield made


class Case:
    """A blob in a repository, at an upstream name of its own."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.name = lab.take_name()
        self.data = make_bytes(SIZE_BYTES, seed=int.from_bytes(self.name.encode(), "big"))
        self.digest = lab.upstream.content.add_blob(self.name, self.data)
        self.target = f"/v2/{self.name}/blobs/{self.digest}?ns={self.name}"

    def fail(self, fault: Fault, times: int | None = 1) -> None:
        """Let the next requests to the CDN fail."""
        self.lab.upstream.fail(fault, kind="cdn", reference=self.digest, times=times)

    def ask(self, method: str = "GET") -> Answer:
        """Ask the mirror for the blob."""
        return self.lab.ask(self.target, method=method)

    @property
    def urls_count(self) -> int:
        """How many URLs upstream was asked for, with credentials."""
        return sum(
            seen.header("authorization") is not None
            for seen in self.lab.upstream.seen(kind="blob", repository=self.name)
        )

    @property
    def targets_count(self) -> int:
        """How many requests the CDN got."""
        return self.lab.upstream.count(kind="cdn", reference=self.digest)


@pytest.fixture
def case(lab: Lab) -> Case:
    return Case(lab)


def test_a_redirect_is_followed_without_credentials_and_not_passed_on(case: Case) -> None:
    answer = case.ask()
    assert (answer.status, answer.body) == (200, case.data)
    assert "location" not in answer.headers
    cdn = case.lab.upstream.seen(kind="cdn", reference=case.digest)
    assert [seen.header("authorization") for seen in cdn] == [None]


@pytest.mark.parametrize("fault", [EXPIRED, CHALLENGE])
@pytest.mark.parametrize("times", [1, 3])
def test_a_url_that_is_refused_is_asked_for_anew(case: Case, fault: Fault, times: int) -> None:
    case.fail(fault, times)
    answer = case.ask()
    assert (answer.status, answer.body) == (200, case.data)
    assert case.targets_count == times + 1
    assert case.urls_count >= times + 1


@pytest.mark.parametrize(("fault", "says"), [(EXPIRED, "403"), (CHALLENGE, "401")])
def test_after_three_fresh_urls_it_is_denied_without_a_challenge(
    case: Case, fault: Fault, says: str
) -> None:
    case.fail(fault, None)
    answer = case.ask()
    assert (answer.status, answer.code) == (403, "DENIED")
    assert "www-authenticate" not in answer.headers
    assert f"127.0.0.1:{case.lab.upstream.cdn.port}" in message_of(answer)
    assert says in message_of(answer)
    assert case.targets_count == 4


@pytest.mark.parametrize("fault", [Fault(status=500), Fault(status=503), Fault(drop=True)])
def test_a_target_that_fails_for_a_moment_is_tried_again(case: Case, fault: Fault) -> None:
    case.fail(fault)
    answer = case.ask()
    assert (answer.status, answer.body) == (200, case.data)
    assert case.targets_count == 2


def test_a_body_that_breaks_goes_on_by_a_fresh_url(case: Case) -> None:
    gate = Gate()
    case.fail(Fault(stall_at=100_000, gate=gate, truncate_at=100_000))
    case.fail(EXPIRED)
    try:
        with case.lab.open(case.target) as response:
            # The client library drops what it has received, but not read, when a connection breaks.
            assert response.read(100_000) == case.data[:100_000]
            gate.open()
            assert response.read() == case.data[100_000:]
    finally:
        gate.open()
    first, *rest = case.lab.upstream.seen(kind="cdn", reference=case.digest)
    assert first.header("range") is None
    assert [seen.header("range") for seen in rest] == [f"bytes=100000-{SIZE_BYTES - 1}"] * 2
    signatures = [seen.query["signature"][0] for seen in [first, *rest]]
    assert len(set(signatures)) == 3


def test_a_limit_of_the_target_is_a_limit(case: Case) -> None:
    case.fail(Fault(status=429, headers={"Retry-After": "9"}))
    answer = case.ask()
    assert (answer.status, answer.code) == (429, "TOOMANYREQUESTS")
    assert 0 < int(answer.headers["retry-after"]) <= 9


def test_a_damaged_body_of_the_target_is_fetched_anew(case: Case) -> None:
    small = make_bytes(1_000, seed=int.from_bytes(case.name.encode(), "little"))
    digest = case.lab.upstream.content.add_blob(case.name, small)
    case.lab.upstream.fail(Fault(corrupt_at=-1), kind="cdn", reference=digest)
    answer = case.lab.ask(f"/v2/{case.name}/blobs/{digest}?ns={case.name}")
    assert (answer.status, answer.body) == (200, small)


def test_head_asks_for_nothing_but_a_head(case: Case) -> None:
    answer = case.ask("HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["content-length"] == str(SIZE_BYTES)
    methods = {seen.method for seen in case.lab.upstream.seen(repository=case.name)}
    assert methods == {"HEAD"}


def test_head_is_yes_where_the_target_refuses_heads(case: Case) -> None:
    case.fail(EXPIRED, None)
    assert case.ask("HEAD").status == 200


@pytest.mark.parametrize(
    "fault",
    [Fault(status=302), Fault(redirect_to="ftp://127.0.0.1/"), Fault(redirect_to="http://[")],
)
def test_a_redirect_to_nowhere_is_a_bad_gateway(case: Case, fault: Fault) -> None:
    case.lab.upstream.fail(fault, kind="blob", repository=case.name, times=None)
    answer = case.ask()
    assert (answer.status, answer.code) == (502, "UNAVAILABLE")


def test_redirects_in_a_circle_are_a_bad_gateway(case: Case) -> None:
    path = f"/v2/{case.name}/blobs/{case.digest}"
    case.lab.upstream.fail(Fault(redirect_to=path), kind="blob", repository=case.name, times=None)
    answer = case.ask()
    assert (answer.status, answer.code) == (502, "UNAVAILABLE")
    assert "redirects" in message_of(answer)


def test_the_upstreams_password_is_in_no_log(lab: Lab) -> None:
    assert not [line for line in lab.mirror.child.lines() if PASSWORD in line]
    assert lab.find_leaks() == []
