"""The table of failures: complete, as the spec has it, and never a lie about whose fault it was."""

import inspect
import json

import pytest

from engine import errors
from server import refusals
from server.errors import TABLE, Code, describe

# OCI distribution-spec "Error Codes", code-1 to code-14
SPEC_CODES = {
    "BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN", "MANIFEST_INVALID", "MANIFEST_UNKNOWN", "NAME_INVALID",
    "NAME_UNKNOWN", "SIZE_INVALID", "UNAUTHORIZED", "DENIED", "UNSUPPORTED", "TOOMANYREQUESTS",
}  # fmt: skip
# distribution's registry/api/errcode and registry/api/v2
DOCKER_CODES = {"UNKNOWN", "UNAVAILABLE", "RANGE_INVALID", "PAGINATION_NUMBER_INVALID"}
CONTAINERD = b"containerd/1.7.24"
STORE = b"docker/26.1.5 go/go1.24 containerd-client/1.7.24+unknown storage-driver/overlayfs"
DOCKERD = b"docker/20.10.24+dfsg1 go/go1.19.8 git-commit/5d6db84 os/linux arch/amd64"


def unavailable(retry_after_s: float | None = None) -> errors.UpstreamUnavailable:
    return errors.UpstreamUnavailable("upstream docker.io: refused", retry_after_s=retry_after_s)


def limited() -> errors.UpstreamRateLimited:
    return errors.UpstreamRateLimited("upstream docker.io answered 429", retry_after_s=36.2)


def test_all_codes_are_the_specs_or_dockers() -> None:
    assert {code.value for code in Code} == SPEC_CODES | DOCKER_CODES


@pytest.mark.parametrize("module", [errors, refusals])
def test_every_error_has_a_row(module: object) -> None:
    kinds = [kind for _, kind in inspect.getmembers(module, inspect.isclass)]
    kinds = [kind for kind in kinds if issubclass(kind, Exception) and kind is not refusals.Refusal]
    assert kinds
    for kind in kinds:
        assert any(ancestor in TABLE for ancestor in kind.__mro__), kind


def test_only_a_configured_gate_challenges_the_client() -> None:
    assert {kind for kind, (status, _) in TABLE.items() if status == 401} == {refusals.Unauthorized}


def test_an_upstreams_fault_is_never_not_found() -> None:
    rows = [row for kind, row in TABLE.items() if issubclass(kind, errors.UpstreamError)]
    assert rows
    assert 404 not in {status for status, _ in rows}


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.RepositoryUnknown("x"), 404, Code.NAME_UNKNOWN),
        (errors.ManifestUnknown("x"), 404, Code.MANIFEST_UNKNOWN),
        (errors.BlobUnknown("x"), 404, Code.BLOB_UNKNOWN),
        (errors.InvalidRepository("A"), 400, Code.NAME_INVALID),
        (errors.InvalidDigest("A"), 400, Code.DIGEST_INVALID),
        (errors.InvalidReference("."), 404, Code.MANIFEST_UNKNOWN),
        (errors.UpstreamDenied("x"), 403, Code.DENIED),
        (limited(), 429, Code.TOOMANYREQUESTS),
        (unavailable(), 503, Code.UNAVAILABLE),
        (errors.UpstreamProtocolError("x"), 502, Code.UNAVAILABLE),
        (errors.DigestMismatch("a", "b"), 502, Code.UNAVAILABLE),
        (errors.SizeMismatch("a", 1, 2), 502, Code.UNAVAILABLE),
        (errors.StorageError("x"), 503, Code.UNAVAILABLE),
        (errors.OutOfSpace(2, 1, can_ever_fit=False), 503, Code.UNAVAILABLE),
        (refusals.PathUnknown("/x"), 404, Code.UNSUPPORTED),
        (refusals.MethodUnsupported(b"PUT"), 405, Code.UNSUPPORTED),
        (refusals.NamespaceUnknown("x", ["y"]), 404, Code.NAME_UNKNOWN),
        (refusals.PageSizeInvalid("x"), 400, Code.PAGINATION_NUMBER_INVALID),
        (refusals.RangeUnsatisfiable(5), 416, Code.RANGE_INVALID),
        (refusals.Unauthorized("r"), 401, Code.UNAUTHORIZED),
        (refusals.LoginsLimited(3), 429, Code.TOOMANYREQUESTS),
    ],
)
def test_each_failure_is_told_as_what_it_is(error: Exception, status: int, code: Code) -> None:
    problem = describe(error, DOCKERD)
    assert (problem.status, problem.code) == (status, code)
    told = json.loads(problem.body())["errors"]
    assert [entry["code"] for entry in told] == [code.value]
    assert str(error) in told[0]["message"]


@pytest.mark.parametrize("user_agent", [CONTAINERD, STORE])
def test_containerd_is_told_503_where_others_are_told_429(user_agent: bytes) -> None:
    problem = describe(limited(), user_agent)
    assert (problem.status, problem.code) == (503, Code.UNAVAILABLE)
    assert ("Retry-After", "37") in problem.fields
    assert problem.message == "upstream docker.io answered 429, retry after 37 s"


@pytest.mark.parametrize("user_agent", [None, b"", DOCKERD, b"containers/5.23.1", b"skopeo/1.9.3"])
def test_others_are_told_when_to_come_back(user_agent: bytes | None) -> None:
    problem = describe(limited(), user_agent)
    assert problem.status == 429
    assert ("Retry-After", "37") in problem.fields


@pytest.mark.parametrize(
    ("retry_after_s", "told"), [(None, "5"), (0.0, "1"), (0.2, "1"), (12.0, "12"), (12.1, "13")]
)
def test_an_outage_says_when_to_come_back(retry_after_s: float | None, told: str) -> None:
    assert ("Retry-After", told) in describe(unavailable(retry_after_s), None).fields


def test_advice_that_is_there_is_not_repeated() -> None:
    error = errors.UpstreamRateLimited("slow down, retry after 9 s", retry_after_s=9)
    assert describe(error, None).message == "slow down, retry after 9 s"


def test_refusals_say_what_would_be_right() -> None:
    assert ("Allow", "GET, HEAD") in describe(refusals.MethodUnsupported(b"PUT"), None).fields
    outside = describe(refusals.RangeUnsatisfiable(5), None)
    assert ("Content-Range", "bytes */5") in outside.fields
    assert ("Retry-After", "4") in describe(refusals.LoginsLimited(3.5), None).fields


@pytest.mark.parametrize(
    ("realm", "challenge"),
    [
        ("basic-realm", 'Basic realm="basic-realm"'),
        ('a "b" \\c', 'Basic realm="a \\"b\\" \\\\c"'),
    ],
)
def test_a_challenge_quotes_its_realm(realm: str, challenge: str) -> None:
    fields = describe(refusals.Unauthorized(realm), None).fields
    assert ("WWW-Authenticate", challenge) in fields
    assert ("Docker-Distribution-API-Version", "registry/2.0") in fields


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (errors.BlobUnknown("x"), "moorage; fwd=uri-miss; fwd-status=404"),
        (limited(), "moorage; fwd=uri-miss; fwd-status=429"),
        (
            errors.UpstreamUnavailable("x", upstream_status=502),
            "moorage; fwd=uri-miss; fwd-status=502",
        ),
        (unavailable(), "moorage; fwd=uri-miss; detail=no-answer"),
        (errors.DigestMismatch("a", "b"), "moorage; fwd=uri-miss; detail=mismatch"),
        (errors.StorageError("x"), "moorage; detail=storage-failed"),
        (errors.InvalidDigest("x"), "moorage; detail=not-forwarded"),
        (refusals.RangeUnsatisfiable(5), "moorage; detail=range-unsatisfiable"),
        (refusals.PathUnknown("/"), "moorage; detail=not-forwarded"),
    ],
)
def test_a_failure_says_what_the_cache_did(error: Exception, told: str) -> None:
    assert ("Cache-Status", told) in describe(error, None).fields


def test_what_upstream_says_is_bounded_and_stays_json() -> None:
    problem = describe(errors.UpstreamDenied('"\\\n\x00' * 10_000), None)
    assert len(problem.message) <= 1_100
    assert json.loads(problem.body())["errors"][0]["message"] == problem.message


def test_an_error_of_nobodys_is_not_told() -> None:
    with pytest.raises(KeyError):
        describe(ValueError("a bug"), None)
