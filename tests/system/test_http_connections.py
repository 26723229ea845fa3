"""Connections: many requests on one, one on each, old versions, TLS by mistake, early ends."""

import ssl
from collections.abc import Iterator

import pytest

from tests.fakes.upstream import Fault, Gate
from tests.fakes.upstream_content import Image, make_bytes
from tests.system.lab import Lab, run_lab
from tests.system.wire import AT_ONCE_S, connect, request

pytestmark = pytest.mark.system

REPOSITORY = "acme/app"
LAYER = make_bytes(300_000, seed=1)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One mirror for all."""
    with run_lab(tmp_path_factory.mktemp("connections")) as made:
        yield made


@pytest.fixture(scope="module")
def image(lab: Lab) -> Image:
    """An image that is here."""
    added = lab.upstream.content.add_image(REPOSITORY, "1", (LAYER, b"small"))
    for digest in added.layers:
        assert lab.ask(f"/v2/{REPOSITORY}/blobs/{digest}").status == 200
    return added


def blob(digest: str, repository: str = REPOSITORY) -> str:
    return f"/v2/{repository}/blobs/{digest}"


# Many requests on one connection


def test_a_connection_serves_one_request_after_the_other(lab: Lab, image: Image) -> None:
    with connect(lab.mirror.address) as wire:
        for target, body in [
            ("/v2/", b"{}"),
            (blob(image.layers[0]), LAYER),
            (f"/v2/{REPOSITORY}/manifests/1", image.body),
            (blob(image.layers[1]), b"small"),
        ]:
            wire.send(request(target))
            response = wire.receive()
            assert (response.version, response.status) == ("HTTP/1.1", 200)
            assert response.body == body
            assert "connection" not in response.headers


def test_pipelined_requests_are_answered_in_their_order(lab: Lab, image: Image) -> None:
    repository = "acme/pipelined"
    cold = lab.upstream.content.add_image(repository, "1", (LAYER[::-1],))
    sent = [
        (request(blob(image.layers[1])), "GET", 200, b"small"),
        (request(blob(cold.layers[0], repository)), "GET", 200, LAYER[::-1]),
        (request(blob(image.layers[0]), method="HEAD"), "HEAD", 200, b""),
        (request(f"/v2/{repository}/manifests/1"), "GET", 200, cold.body),
        (request(blob(image.layers[0]), "Range: bytes=5-9"), "GET", 206, LAYER[5:10]),
        (request("/v2/", method="DELETE"), "DELETE", 405, None),
        (request("/none"), "GET", 404, None),
        (request(blob(image.layers[0])), "GET", 200, LAYER),
    ]
    with connect(lab.mirror.address) as wire:
        wire.send(b"".join(data for data, *_ in sent))
        for _, method, status, body in sent:
            response = wire.receive(method)
            assert response.status == status
            assert body is None or response.body == body


def test_a_request_may_come_byte_by_byte(lab: Lab) -> None:
    with connect(lab.mirror.address) as wire:
        for byte in request("/v2/"):
            wire.send(bytes([byte]))
        assert wire.receive().body == b"{}"


def test_a_target_may_name_the_mirror(lab: Lab, image: Image) -> None:
    with connect(lab.mirror.address) as wire:
        wire.send(request(f"http://mirror.test{blob(image.layers[0])}"))
        assert wire.receive().body == LAYER


# One request on each


def test_a_client_that_wants_to_close_is_told_so_and_closed(lab: Lab, image: Image) -> None:
    with connect(lab.mirror.address) as wire:
        wire.send(request(blob(image.layers[0]), "Connection: close"))
        response = wire.receive()
        assert response.headers["connection"] == "close"
        assert response.body == LAYER
        assert wire.receive_end() == b""


def test_a_client_that_has_sent_all_still_gets_its_answer(lab: Lab, image: Image) -> None:
    with connect(lab.mirror.address) as wire:
        wire.send(request(blob(image.layers[0])))
        wire.shut_down()
        assert wire.receive().body == LAYER
        assert wire.receive_end() == b""


def test_a_request_with_a_body_is_refused_whole_and_the_last(lab: Lab) -> None:
    body = bytes(500_000)
    lines = f"Content-Length: {len(body)}"
    with connect(lab.mirror.address) as wire:
        wire.send(request("/v2/acme/app/manifests/1", lines, method="PUT") + body)
        response = wire.receive()
        assert (response.status, response.headers["connection"]) == (405, "close")
        assert wire.receive_end() == b""


def test_what_is_hidden_in_a_body_is_no_request(lab: Lab) -> None:
    hidden = request("/v2/")
    lines = f"Content-Length: {len(hidden)}"
    with connect(lab.mirror.address) as wire:
        wire.send(request("/v2/", lines, method="POST") + hidden)
        assert wire.receive().status == 405
        assert wire.receive_end() == b""


# HTTP/1.0


@pytest.mark.parametrize("is_cold", [False, True])
def test_http_1_0_is_closed_unless_it_asks_to_stay(lab: Lab, image: Image, is_cold: bool) -> None:
    repository, data = REPOSITORY, LAYER
    digest = image.layers[0]
    if is_cold:
        repository, data = "acme/old", LAYER[:-1]
        digest = lab.upstream.content.add_blob(repository, data)
    with connect(lab.mirror.address) as wire:
        wire.send(request(blob(digest, repository), version="1.0"))
        response = wire.receive()
        assert (response.status, response.body) == (200, data)
        assert response.headers["connection"] == "close"
        assert wire.receive_end() == b""


def test_http_1_0_may_stay(lab: Lab, image: Image) -> None:
    with connect(lab.mirror.address) as wire:
        for _ in range(2):
            wire.send(request(blob(image.layers[0]), "Connection: keep-alive", version="1.0"))
            response = wire.receive()
            assert response.headers["connection"] == "keep-alive"
            assert response.body == LAYER


def test_http_1_0_needs_no_host(lab: Lab) -> None:
    with connect(lab.mirror.address) as wire:
        wire.send(b"GET /v2/ HTTP/1.0\r\n\r\n")
        assert wire.receive().body == b"{}"


@pytest.mark.parametrize(
    ("version", "framing"), [("1.1", "transfer-encoding"), ("1.0", "connection")]
)
def test_a_body_of_unknown_length_is_framed_as_the_version_can(
    lab: Lab, version: str, framing: str
) -> None:
    repository = f"acme/chunked-{version}"
    data = repository.encode() + LAYER
    digest = lab.upstream.content.add_blob(repository, data)
    gate = Gate()
    held = Fault(chunked=True, stall_at=200_000, gate=gate)
    lab.upstream.fail(held, kind="blob", repository=repository)
    try:
        with connect(lab.mirror.address) as wire:
            wire.send(request(blob(digest, repository), version=version))
            head = wire.receive_head()
            gate.open()
            assert wire.receive_body(head) == data
            assert "content-length" not in head.headers
            assert head.headers[framing] == ("chunked" if version == "1.1" else "close")
    finally:
        gate.open()


# What is no request


def test_a_tls_client_is_closed_at_once(lab: Lab) -> None:
    context = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(incoming, outgoing, server_hostname="mirror.test")
    with pytest.raises(ssl.SSLWantReadError):
        session.do_handshake()
    hello = outgoing.read()
    with connect(lab.mirror.address, AT_ONCE_S) as wire:
        wire.send(hello)
        assert wire.receive_end() == b""


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /v2/ HTTP/1.1\r\n\r\n", 400),  # without Host
        (b"GET /v2/ HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET /v2/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /v2/ HTTP/1.1\r\nHost: a\r\nbad name: x\r\n\r\n", 400),
        (request("/v2/", "Content-Length: 1", "Transfer-Encoding: chunked"), 400),
        (b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET /v2/ HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
        (b"GET /v2/ HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", 431),
    ],
)
def test_what_is_no_request_is_refused_and_the_last(lab: Lab, data: bytes, status: int) -> None:
    with connect(lab.mirror.address, AT_ONCE_S) as wire:
        wire.send(data + request("/v2/"))
        response = wire.receive()
        assert (response.status, response.headers["connection"]) == (status, "close")
        assert "www-authenticate" not in response.headers
        assert wire.receive_end() == b""
    assert lab.ask("/v2/").status == 200


# Early ends


def test_a_client_that_leaves_early_leaves_its_fill_running(lab: Lab) -> None:
    repository = "acme/left"
    data = make_bytes(400_000, seed=3)
    digest = lab.upstream.content.add_blob(repository, data)
    gate = Gate()
    held = Fault(stall_at=200_000, gate=gate)
    lab.upstream.fail(held, kind="blob", repository=repository)
    with lab.open(blob(digest, repository)) as response:
        lab.wait_at(gate)
        assert response.read(1_000) == data[:1_000]
    lab.wait_for_access(blob(digest, repository))  # the mirror has noticed
    gate.open()
    assert lab.ask(blob(digest, repository)).body == data
    assert lab.upstream.count(kind="blob", repository=repository) == 1


def test_a_client_that_leaves_before_there_is_an_answer_harms_nobody(lab: Lab) -> None:
    repository = "acme/left-first"
    data = make_bytes(100_000, seed=4)
    digest = lab.upstream.content.add_blob(repository, data)
    gate = Gate()
    lab.upstream.fail(Fault(hold=gate), kind="blob", repository=repository)
    with connect(lab.mirror.address) as wire:
        wire.send(request(blob(digest, repository)))
        lab.wait_at(gate)
        wire.reset()
    lab.wait_for_access(blob(digest, repository))
    gate.open()
    assert lab.ask(blob(digest, repository)).body == data
    assert lab.upstream.count(kind="blob", repository=repository) == 1


def test_a_slow_reader_slows_nobody(lab: Lab) -> None:
    repository = "acme/slow"
    data = make_bytes(20_000_000, seed=5)  # more than the buffers of two sockets hold
    digest = lab.upstream.content.add_blob(repository, data)
    with lab.open(blob(digest, repository)) as slow:
        assert lab.ask(blob(digest, repository)).body == data
        assert slow.read() == data
    assert lab.upstream.count(kind="blob", repository=repository) == 1
