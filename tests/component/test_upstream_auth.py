"""Logins at an upstream: tokens, Basic, and who never gets to see a credential."""

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from engine.errors import (
    UpstreamDenied,
    UpstreamProtocolError,
    UpstreamRateLimited,
    UpstreamUnavailable,
)
from engine.names import Repository, Tag
from engine.upstream.registry import Registry
from tests.fakes.upstream import Fault, Gate, ScriptedUpstream
from tests.fakes.upstream_client import BUSYBOX, QUICK, open_registry, read_all, soon

pytestmark = pytest.mark.anyio

OTHER = Repository("library/other")
TAG = Tag("1.35")


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as scripted:
        for repository in (BUSYBOX, OTHER):
            scripted.content.add_image(repository, TAG)
        yield scripted


@pytest.fixture
async def anonymous(upstream: ScriptedUpstream) -> AsyncIterator[Registry]:
    async with open_registry(upstream.settings()) as registry:
        yield registry


@pytest.fixture
async def ann(upstream: ScriptedUpstream) -> AsyncIterator[Registry]:
    settings = upstream.settings(username="ann", password="s3cret")
    async with open_registry(settings) as registry:
        yield registry


async def test_the_first_request_goes_out_bare_and_its_challenge_is_answered_once(
    upstream: ScriptedUpstream, anonymous: Registry
) -> None:
    upstream.auth.require_token()
    await anonymous.head_manifest(BUSYBOX, TAG, deadline=soon())
    assert [(seen.kind, seen.status) for seen in upstream.requests] == [
        ("manifest", 401),
        ("token", 200),
        ("manifest", 200),
    ]
    token = upstream.seen(kind="token")[0]
    assert token.query == {
        "service": ["scripted.test"],
        "scope": ["repository:library/busybox:pull"],
    }
    assert token.header("authorization") is None


async def test_later_requests_to_a_repository_bear_the_token_at_once(
    upstream: ScriptedUpstream, anonymous: Registry
) -> None:
    upstream.auth.require_token()
    await anonymous.head_manifest(BUSYBOX, TAG, deadline=soon())
    await anonymous.get_manifest(BUSYBOX, TAG, deadline=soon())
    assert upstream.seen(kind="manifest")[-1].status == 200
    assert (upstream.count(kind="manifest"), upstream.count(kind="token")) == (3, 1)


async def test_each_repository_has_a_token_of_its_own(
    upstream: ScriptedUpstream, anonymous: Registry
) -> None:
    upstream.auth.require_token()
    await anonymous.head_manifest(BUSYBOX, TAG, deadline=soon())
    await anonymous.head_manifest(OTHER, TAG, deadline=soon())
    scopes = [seen.query["scope"] for seen in upstream.seen(kind="token")]
    assert scopes == [["repository:library/busybox:pull"], ["repository:library/other:pull"]]


async def test_all_who_wait_for_a_token_share_one_fetch(
    upstream: ScriptedUpstream, anonymous: Registry
) -> None:
    upstream.auth.require_token()
    gate = Gate()
    upstream.fail(Fault(hold=gate), kind="token")
    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(anonymous.head_manifest(BUSYBOX, TAG, deadline=soon()))
        await upstream.wait_until(lambda: upstream.count(kind="manifest") >= 8)
        gate.open()
    assert upstream.count(kind="token") == 1


async def test_a_cancelled_waiter_does_not_stop_the_fetch_for_the_others(
    upstream: ScriptedUpstream, anonymous: Registry
) -> None:
    upstream.auth.require_token()
    gate = Gate()
    upstream.fail(Fault(hold=gate), kind="token")
    first = asyncio.create_task(anonymous.head_manifest(BUSYBOX, TAG, deadline=soon()))
    await gate.wait_reached()
    second = asyncio.create_task(anonymous.head_manifest(BUSYBOX, TAG, deadline=soon()))
    await asyncio.sleep(0)  # one turn, in which it joins the fetch
    first.cancel()
    gate.open()
    await second
    with pytest.raises(asyncio.CancelledError):
        await first
    assert upstream.count(kind="token") == 1


async def test_a_refused_token_is_renewed_once(
    upstream: ScriptedUpstream, anonymous: Registry
) -> None:
    upstream.auth.require_token()
    await anonymous.head_manifest(BUSYBOX, TAG, deadline=soon())
    upstream.auth.revoke_tokens()
    await anonymous.head_manifest(BUSYBOX, TAG, deadline=soon())
    assert upstream.count(kind="token") == 2


async def test_rights_that_a_token_lacks_are_a_denial_in_upstreams_words(
    upstream: ScriptedUpstream, anonymous: Registry
) -> None:
    upstream.auth.require_token()
    upstream.auth.grants = {"": {OTHER}}
    await anonymous.head_manifest(OTHER, TAG, deadline=soon())
    with pytest.raises(UpstreamDenied, match="UNAUTHORIZED: authentication required") as caught:
        await anonymous.get_manifest(BUSYBOX, TAG, deadline=soon())
    assert caught.value.upstream_status == 401


async def test_a_403_is_a_denial_and_not_retried(
    upstream: ScriptedUpstream, anonymous: Registry
) -> None:
    upstream.fail(Fault(status=403, code="DENIED", message="pay first"))
    with pytest.raises(UpstreamDenied, match="DENIED: pay first"):
        await anonymous.get_manifest(BUSYBOX, TAG, deadline=soon())
    assert upstream.count() == 1


async def test_a_challenge_without_a_scope_means_pull(
    upstream: ScriptedUpstream, anonymous: Registry
) -> None:
    upstream.auth.require_token()
    upstream.auth.has_scope = False
    await anonymous.head_manifest(BUSYBOX, TAG, deadline=soon())


async def test_access_token_will_do(upstream: ScriptedUpstream, anonymous: Registry) -> None:
    upstream.auth.require_token()
    upstream.auth.token_field = "access_token"
    await anonymous.head_manifest(BUSYBOX, TAG, deadline=soon())


async def test_a_token_reply_without_a_token_is_a_protocol_error(
    upstream: ScriptedUpstream, anonymous: Registry
) -> None:
    upstream.auth.require_token()
    upstream.auth.token_field = "tokem"
    with pytest.raises(UpstreamProtocolError, match="no token"):
        await anonymous.head_manifest(BUSYBOX, TAG, deadline=soon())


async def test_credentials_go_to_the_realm_and_not_with_the_request(
    upstream: ScriptedUpstream, ann: Registry
) -> None:
    upstream.auth.require_token(ann="s3cret")
    await ann.head_manifest(BUSYBOX, TAG, deadline=soon())
    sent = upstream.seen(kind="token")[0].header("authorization")
    assert sent == "Basic " + base64.b64encode(b"ann:s3cret").decode()
    manifests = upstream.seen(kind="manifest")
    assert manifests[0].header("authorization") is None
    assert (manifests[1].header("authorization") or "").startswith("Bearer ")


async def test_wrong_credentials_are_a_denial_that_shows_no_password(
    upstream: ScriptedUpstream, ann: Registry
) -> None:
    upstream.auth.require_token(ann="another")
    with pytest.raises(UpstreamDenied, match=r"'ann'.*incorrect username or password") as caught:
        await ann.head_manifest(BUSYBOX, TAG, deadline=soon())
    assert "s3cret" not in str(caught.value)


async def test_a_realm_at_a_foreign_host_gets_nothing(
    upstream: ScriptedUpstream, ann: Registry
) -> None:
    upstream.auth.require_token(ann="s3cret")
    upstream.auth.realm = upstream.auth.realm.replace("127.0.0.1", "localhost")
    with pytest.raises(UpstreamProtocolError, match="foreign host"):
        await ann.head_manifest(BUSYBOX, TAG, deadline=soon())
    assert upstream.count(kind="token") == 0
    assert upstream.tokens.connections_count == 0


async def test_a_realm_at_a_foreign_host_is_refused_to_anonymous_upstreams_too(
    upstream: ScriptedUpstream, anonymous: Registry
) -> None:
    upstream.auth.require_token()
    upstream.auth.realm = upstream.auth.realm.replace("127.0.0.1", "127.0.0.2")
    with pytest.raises(UpstreamProtocolError, match="foreign host"):
        await anonymous.head_manifest(BUSYBOX, TAG, deadline=soon())


async def test_a_429_of_the_token_service_pauses_tokens_alone(
    upstream: ScriptedUpstream, anonymous: Registry
) -> None:
    upstream.auth.require_token()
    await anonymous.head_manifest(OTHER, TAG, deadline=soon())
    upstream.fail(Fault(status=429, headers={"Retry-After": "7"}), kind="token")
    with pytest.raises(UpstreamRateLimited) as caught:
        await anonymous.head_manifest(BUSYBOX, TAG, deadline=soon())
    assert caught.value.retry_after_s == 7.0
    with pytest.raises(UpstreamRateLimited, match="token"):
        await anonymous.head_manifest(BUSYBOX, TAG, deadline=soon())
    assert upstream.count(kind="token") == 2
    # Whoever has a token goes on.
    await anonymous.head_manifest(OTHER, TAG, deadline=soon())


async def test_a_token_service_in_trouble_is_retried(
    upstream: ScriptedUpstream, anonymous: Registry
) -> None:
    upstream.auth.require_token()
    upstream.fail(Fault(status=503), kind="token")
    upstream.fail(Fault(drop=True), kind="token")
    await anonymous.head_manifest(BUSYBOX, TAG, deadline=soon())
    assert upstream.count(kind="token") >= 3


async def test_basic_credentials_go_to_upstream_itself_and_to_no_redirects_target(
    upstream: ScriptedUpstream, ann: Registry
) -> None:
    upstream.auth.require_basic(ann="s3cret")
    upstream.auth.scheme_prefix = 'Negotiate, Digest realm="a, b", nonce="c=d", '
    digest = upstream.content.add_blob(BUSYBOX, b"layer")
    upstream.redirect_blobs = 307
    for _ in range(2):
        stream = await ann.open_blob(BUSYBOX, digest, deadline=soon())
        assert await read_all(stream) == b"layer"
    assert [seen.status for seen in upstream.seen(kind="blob")] == [401, 307, 307]
    assert all(seen.header("authorization") is None for seen in upstream.seen(kind="cdn"))


async def test_a_basic_challenge_without_credentials_is_a_denial(
    upstream: ScriptedUpstream, anonymous: Registry
) -> None:
    upstream.auth.require_basic(ann="s3cret")
    with pytest.raises(UpstreamDenied, match="UNAUTHORIZED: log in"):
        await anonymous.get_manifest(BUSYBOX, TAG, deadline=soon())
    assert upstream.count() == 1


async def test_wrong_basic_credentials_are_tried_once(
    upstream: ScriptedUpstream, ann: Registry
) -> None:
    upstream.auth.require_basic(ann="another")
    with pytest.raises(UpstreamDenied):
        await ann.get_manifest(BUSYBOX, TAG, deadline=soon())
    assert upstream.count() == 2


async def test_what_is_remembered_is_bounded(upstream: ScriptedUpstream) -> None:
    upstream.auth.require_token()
    async with open_registry(upstream.settings(), replace(QUICK, max_remembered=1)) as registry:
        for repository in (BUSYBOX, OTHER, BUSYBOX):
            await registry.head_manifest(repository, TAG, deadline=soon())
    # Neither the challenge nor the token of the first one was there any more.
    assert (upstream.count(kind="manifest"), upstream.count(kind="token")) == (6, 3)


async def test_a_token_service_that_says_nothing_is_unavailable(
    upstream: ScriptedUpstream,
) -> None:
    upstream.auth.require_token()
    gate = Gate()
    upstream.fail(Fault(hold=gate), kind="token", times=None)
    async with open_registry(upstream.settings(), replace(QUICK, attempt_s=0.05)) as registry:
        with pytest.raises(UpstreamUnavailable, match=r"no token within|no complete answer"):
            await registry.head_manifest(BUSYBOX, TAG, deadline=soon(0.3))
    gate.open()
