"""What every client gets over HTTP: methods, paths, headers, validators; and what upstream gets."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.fakes.upstream_content import MANIFEST, Image, make_bytes
from tests.system.lab import SECRET, Lab, message_of, run_lab
from tests.system.raw import Answer

pytestmark = pytest.mark.system

NOTHING = "sha256:" + "0" * 64
LAYER = make_bytes(200_000, seed=1)
REPOSITORY = "acme/app"
NAMESPACE = "docker.io"
VARYING = ("date", "age", "x-request-id")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One mirror for all."""
    with run_lab(tmp_path_factory.mktemp("contract")) as made:
        yield made


@pytest.fixture(scope="module")
def image(lab: Lab) -> Image:
    """An image that is here."""
    added = lab.upstream.content.add_image(REPOSITORY, "1", (LAYER,))
    for path in (f"manifests/{added.manifest}", f"blobs/{added.layers[0]}"):
        assert lab.ask(f"/v2/{REPOSITORY}/{path}").status == 200
    return added


PATHS = {
    "root": "/",
    "base": "/v2/",
    "tag": "/v2/acme/app/manifests/1",
    "manifest": "/v2/acme/app/manifests/{manifest}",
    "blob": "/v2/acme/app/blobs/{blob}",
    "tags": "/v2/acme/app/tags/list",
    "referrers": "/v2/acme/app/referrers/{manifest}",
    "catalog": "/v2/_catalog",
    "unknown tag": "/v2/acme/app/manifests/none",
    "unknown blob": f"/v2/acme/app/blobs/{NOTHING}",
    "unknown path": "/v1/_ping",
}


def path_of(name: str, image: Image) -> str:
    return PATHS[name].format(manifest=image.manifest, blob=image.layers[0])


def without(answer: Answer, *names: str) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in names}


# The API's root


@pytest.mark.parametrize("path", ["/v2/", "/v2"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_base_answers_by_itself(lab: Lab, path: str, method: str) -> None:
    asked_count = lab.upstream.count()
    answer = lab.ask(path, method=method)
    assert (answer.status, answer.body) == (200, b"{}" if method == "GET" else b"")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-length"] == "2"
    assert answer.headers["docker-distribution-api-version"] == "registry/2.0"
    assert lab.upstream.count() == asked_count


def test_the_root_is_alive(lab: Lab) -> None:
    assert lab.ask("/").status == 200


# Methods and paths


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("name", PATHS)
def test_nothing_can_be_written(lab: Lab, image: Image, name: str, method: str) -> None:
    asked_count = lab.upstream.count()
    answer = lab.ask(path_of(name, image), method=method)
    assert (answer.status, answer.code) == (405, "UNSUPPORTED")
    assert answer.headers["allow"] == "GET, HEAD"
    assert lab.upstream.count() == asked_count


@pytest.mark.parametrize(
    "path",
    [
        "/v1/_ping",
        "/v2x/",
        "/v2//",
        "/healthz",
        "/metrics",
        "/v2/acme/app",
        "/v2/acme/app/",
        "/v2/acme/app/tags",
        "/v2/acme/app/uploads/1",
        "/v2/acme/app/blobs/uploads/",
        "/index.html",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_unknown_path_is_404_and_not_asked_for(lab: Lab, path: str, method: str) -> None:
    asked_count = lab.upstream.count()
    answer = lab.ask(path, method=method)
    assert answer.status == 404
    assert answer.headers["content-type"] == "application/json"
    assert lab.upstream.count() == asked_count


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v2/ACME/app/manifests/1", 400, "NAME_INVALID"),
        ("/v2/acme//app/manifests/1", 400, "NAME_INVALID"),
        (f"/v2/{'a' * 256}/manifests/1", 400, "NAME_INVALID"),
        (f"/v2/../../etc/blobs/{NOTHING}", 400, "NAME_INVALID"),
        (f"/v2/%2e%2e/%2e%2e/etc/blobs/{NOTHING}", 400, "NAME_INVALID"),
        ("/v2/acme/app/blobs/sha256:00", 400, "DIGEST_INVALID"),
        (f"/v2/acme/app/blobs/{NOTHING.upper()}", 400, "DIGEST_INVALID"),
        ("/v2/acme/app/blobs/md5:d41d8cd98f00b204e9800998ecf8427e", 400, "DIGEST_INVALID"),
        ("/v2/acme/app/manifests/sha256:00", 400, "DIGEST_INVALID"),
        ("/v2/acme/app/manifests/-", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/acme/app/manifests/{'t' * 129}", 404, "MANIFEST_UNKNOWN"),
        ("/v2/acme/app/referrers/latest", 400, "DIGEST_INVALID"),
    ],
)
def test_a_name_that_breaks_the_grammar_reaches_nobody(
    lab: Lab, path: str, status: int, code: str
) -> None:
    asked_count = lab.upstream.count()
    answer = lab.ask(path)
    assert (answer.status, answer.code) == (status, code)
    assert message_of(answer)
    assert lab.upstream.count() == asked_count


@pytest.mark.parametrize("name", ["blobs", "manifests/tags", "a/blobs/b", "referrers"])
def test_a_repository_may_be_named_like_an_endpoint(lab: Lab, name: str) -> None:
    repository = f"x/{name}"
    added = lab.upstream.content.add_image(repository, "1", (repository.encode(),))
    assert lab.ask(f"/v2/{repository}/manifests/1").body == added.body
    assert lab.ask(f"/v2/{repository}/blobs/{added.layers[0]}").body == repository.encode()


def test_an_escaped_path_is_the_same_path(lab: Lab, image: Image) -> None:
    answer = lab.ask(f"/v2/%61cme%2Fapp/blobs/{image.layers[0].replace(':', '%3A')}")
    assert (answer.status, answer.digest) == (200, image.layers[0])


# HEAD


@pytest.mark.parametrize("name", PATHS)
def test_head_is_get_without_the_body(lab: Lab, image: Image, name: str) -> None:
    path = path_of(name, image)
    got, head = lab.ask(path), lab.ask(path, method="HEAD")
    assert head.body == b""
    assert head.status == got.status
    # The first of two that ask for what is unknown is told upstream's words, the second ours.
    varying = (*VARYING, "content-length") if got.status == 404 else VARYING
    assert without(head, *varying) == without(got, *varying)
    assert "content-length" in head.headers


def test_head_of_a_cold_blob_has_the_size_that_its_manifest_names(lab: Lab) -> None:
    repository = "acme/named"
    added = lab.upstream.content.add_image(repository, "1", (b"named",))
    assert lab.ask(f"/v2/{repository}/manifests/1").status == 200
    head = lab.ask(f"/v2/{repository}/blobs/{added.layers[0]}", method="HEAD")
    assert (head.status, head.headers["content-length"]) == (200, "5")
    assert head.headers["docker-content-digest"] == added.layers[0]
    assert lab.upstream.count(kind="blob", repository=repository) == 0


def test_head_of_a_cold_blob_by_digest_alone_costs_a_head(lab: Lab) -> None:
    repository = "acme/unnamed"
    digest = lab.upstream.content.add_blob(repository, b"unnamed")
    for _ in range(2):
        head = lab.ask(f"/v2/{repository}/blobs/{digest}", method="HEAD")
        assert (head.status, head.headers["content-length"]) == (200, "7")
        assert head.headers["content-type"] == "application/octet-stream"
    assert [seen.method for seen in lab.upstream.seen(repository=repository)] == ["HEAD"]


# Headers


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("namespace", ["", NAMESPACE])
def test_every_answer_says_when_what_the_cache_did_and_for_which_namespace(
    lab: Lab, image: Image, name: str, namespace: str
) -> None:
    path = path_of(name, image)
    answer = lab.ask(f"{path}?ns={namespace}" if namespace else path)
    assert answer.headers["date"].endswith(" GMT")
    assert answer.headers["cache-status"].startswith("moorage; ")
    assert "www-authenticate" not in answer.headers
    is_scoped = bool(namespace) and name not in ("root", "unknown path")
    assert answer.headers.get("oci-namespace") == (namespace if is_scoped else None)


@pytest.mark.parametrize("name", PATHS)
def test_nothing_is_ever_encoded(lab: Lab, image: Image, name: str) -> None:
    plain = lab.ask(path_of(name, image))
    answer = lab.ask(path_of(name, image), {"Accept-Encoding": "gzip, zstd, br, deflate, *"})
    assert "content-encoding" not in answer.headers
    assert "vary" not in answer.headers
    assert answer.body == plain.body


def test_a_blob_that_is_here_says_all_about_itself(lab: Lab, image: Image) -> None:
    digest = image.layers[0]
    answer = lab.ask(f"/v2/{REPOSITORY}/blobs/{digest}")
    assert answer.body == LAYER
    assert int(answer.headers["age"]) >= 0
    assert without(answer, *VARYING) == {
        "content-type": "application/octet-stream",
        "content-length": str(len(LAYER)),
        "docker-content-digest": digest,
        "etag": f'"{digest}"',
        "cache-control": "max-age=31536000, immutable",
        "accept-ranges": "bytes",
        "cache-status": "moorage; hit",
    }


def test_a_manifest_says_all_about_itself(lab: Lab, image: Image) -> None:
    answer = lab.ask(f"/v2/{REPOSITORY}/manifests/{image.manifest}")
    assert answer.body == image.body
    assert int(answer.headers["age"]) >= 0
    assert without(answer, *VARYING) == {
        "content-type": MANIFEST,
        "content-length": str(len(image.body)),
        "docker-content-digest": image.manifest,
        "etag": f'"{image.manifest}"',
        "cache-status": "moorage; hit",
    }


def test_the_cache_says_what_it_did_step_by_step(lab: Lab) -> None:
    repository = "acme/steps"
    added = lab.upstream.content.add_image(repository, "1", (b"steps",))
    tag = f"/v2/{repository}/manifests/1"
    blob = f"/v2/{repository}/blobs/{added.layers[0]}"
    told = [lab.ask(path).headers["cache-status"] for path in (tag, tag, blob, blob)]
    assert told[:3] == [
        "moorage; fwd=uri-miss; fwd-status=200; stored",
        "moorage; fwd=stale; fwd-status=200; detail=revalidated",
        "moorage; fwd=uri-miss; fwd-status=200; stored",
    ]
    # It is complete, but may not be safe on disk yet.
    assert told[3] in ("moorage; hit", "moorage; fwd=uri-miss; collapsed")


@pytest.mark.parametrize(
    ("data", "algorithm"), [(b"", "sha256"), (b"long", "sha384"), (b"longer", "sha512")]
)
def test_a_blob_may_be_empty_or_named_by_a_longer_digest(
    lab: Lab, data: bytes, algorithm: str
) -> None:
    repository = f"acme/odd-{algorithm}"
    digest = lab.upstream.content.add_blob(repository, data, algorithm)
    path = f"/v2/{repository}/blobs/{digest}"
    for method in ("HEAD", "GET", "GET", "HEAD"):
        answer = lab.ask(path, method=method)
        assert (answer.status, answer.headers["content-length"]) == (200, str(len(data)))
        assert answer.headers["docker-content-digest"] == digest
        assert answer.body == (data if method == "GET" else b"")
    assert lab.upstream.count(method="GET", repository=repository) == 1


# If-None-Match


@pytest.mark.parametrize("name", ["tag", "manifest", "blob"])
@pytest.mark.parametrize("form", ['"{}"', 'W/"{}"', '"sha256:other", "{}"', "{}", "*"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_a_client_has_is_not_sent_again(
    lab: Lab, image: Image, name: str, form: str, method: str
) -> None:
    digest = image.layers[0] if name == "blob" else image.manifest
    answer = lab.ask(path_of(name, image), {"If-None-Match": form.format(digest)}, method)
    assert (answer.status, answer.body) == (304, b"")
    assert answer.headers["etag"] == f'"{digest}"'
    assert answer.headers["docker-content-digest"] == digest


@pytest.mark.parametrize("name", ["tag", "manifest", "blob"])
def test_what_a_client_has_not_is_sent(lab: Lab, image: Image, name: str) -> None:
    answer = lab.ask(path_of(name, image), {"If-None-Match": f'"{NOTHING}"'})
    assert answer.status == 200
    assert answer.body


def test_a_moved_tag_is_sent_to_who_has_the_old_one(lab: Lab) -> None:
    repository = "acme/moved"
    old = lab.upstream.content.add_image(repository, "1", (b"old",))
    tag = f"/v2/{repository}/manifests/1"
    condition = {"If-None-Match": f'"{old.manifest}"'}
    lab.ask(tag)
    assert lab.ask(tag, condition).status == 304
    new = lab.upstream.content.add_image(repository, "1", (b"new",))
    assert lab.ask(tag, condition).digest == new.manifest


def test_a_cold_blob_that_the_client_has_is_not_fetched(lab: Lab) -> None:
    repository = "acme/has-it"
    digest = lab.upstream.content.add_blob(repository, b"has it")
    answer = lab.ask(f"/v2/{repository}/blobs/{digest}", {"If-None-Match": f'"{digest}"'})
    assert answer.status == 304
    assert lab.upstream.count(method="GET", repository=repository) == 0


# What upstream gets


def test_many_clients_cost_upstream_one_download(lab: Lab) -> None:
    repository = "acme/herd"
    data = make_bytes(1_000_000, seed=2)
    added = lab.upstream.content.add_image(repository, "1", (data,))
    blob = f"/v2/{repository}/blobs/{added.layers[0]}"
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: lab.ask(blob), range(20)))
    assert all(answer.body == data for answer in answers)
    assert lab.upstream.count(kind="blob", repository=repository) == 1


@pytest.mark.parametrize(
    "accept", [MANIFEST, "application/vnd.docker.distribution.manifest.v1+json", "", "*/*"]
)
def test_upstream_gets_the_same_request_whatever_the_client_sends(lab: Lab, accept: str) -> None:
    repository = f"acme/accept-{len(accept)}"
    added = lab.upstream.content.add_image(repository, "1", (repository.encode(),))
    headers = {
        "Accept": accept,
        "Accept-Encoding": "gzip",
        "Cookie": f"session={SECRET}",
        "X-Forwarded-For": "192.0.2.1, 192.0.2.2",
        "X-Registry-Auth": SECRET,
        "User-Agent": "docker/26.1.5",
    }
    assert lab.ask(f"/v2/{repository}/manifests/1", headers).status == 200
    assert lab.ask(f"/v2/{repository}/blobs/{added.layers[0]}", headers).status == 200
    sent = lab.upstream.seen(repository=repository)
    assert len(sent) == 3
    assert {frozenset(seen.headers) for seen in sent} == {
        frozenset({"host", "accept", "accept-encoding", "user-agent"})
    }
    assert {seen.header("accept-encoding") for seen in sent} == {"identity"}
    assert len({seen.header("accept") for seen in lab.upstream.seen(kind="manifest")}) == 1
    assert all((seen.header("user-agent") or "").startswith("moorage/") for seen in sent)


def test_no_credential_of_a_client_is_logged_or_sent_on(lab: Lab) -> None:
    assert lab.find_leaks() == []
