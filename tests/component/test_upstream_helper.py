"""Credentials from a docker-credential-helper: when it runs, what it is asked, how it fails."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import UpstreamDenied, UpstreamUnavailable
from engine.names import Tag
from engine.settings import HelperSettings
from engine.upstream.registry import Registry
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.upstream_client import BUSYBOX, QUICK, open_registry, soon

pytestmark = pytest.mark.anyio

TAG = Tag("1.35")


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as scripted:
        scripted.content.add_image(BUSYBOX, TAG)
        yield scripted


class Helper:
    """A docker-credential-helper on disk that notes its runs."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "docker-credential-scripted"
        self._log = directory / "runs"
        self._log.touch()

    def says(self, script: str) -> None:
        """Replace what it does after noting its argument and stdin."""
        self.path.write_text(f'#!/bin/sh\necho "$1 $(cat)" >> {self._log}\n{script}\n')
        self.path.chmod(0o755)

    @property
    def runs(self) -> list[str]:
        return self._log.read_text().splitlines()


@pytest.fixture
def helper(tmp_path: Path) -> Helper:
    made = Helper(tmp_path)
    made.says("""echo '{"ServerURL":"","Username":"ann","Secret":"s3cret"}'""")
    return made


def helped(
    upstream: ScriptedUpstream, helper: Helper, lifetime_s: float | None = None
) -> AbstractAsyncContextManager[Registry]:
    settings = replace(
        upstream.settings(), helper=HelperSettings(str(helper.path), lifetime_s=lifetime_s)
    )
    return open_registry(settings, replace(QUICK, helper_s=5.0))


async def test_a_helper_is_asked_for_the_host_that_demands_a_login(
    upstream: ScriptedUpstream, helper: Helper
) -> None:
    upstream.auth.require_token(ann="s3cret")
    async with helped(upstream, helper) as registry:
        await registry.head_manifest(BUSYBOX, TAG, deadline=soon())
    assert helper.runs == [f"get 127.0.0.1:{upstream.tokens.port}"]


async def test_without_a_lifetime_a_helper_runs_once(
    upstream: ScriptedUpstream, helper: Helper
) -> None:
    upstream.auth.require_basic(ann="s3cret")
    async with helped(upstream, helper) as registry:
        for _ in range(3):
            await registry.head_manifest(BUSYBOX, TAG, deadline=soon())
    assert len(helper.runs) == 1


async def test_with_lifetime_0_a_helper_runs_for_every_request(
    upstream: ScriptedUpstream, helper: Helper
) -> None:
    upstream.auth.require_basic(ann="s3cret")
    async with helped(upstream, helper, 0.0) as registry:
        for _ in range(3):
            await registry.head_manifest(BUSYBOX, TAG, deadline=soon())
    assert len(helper.runs) == 3


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo oh no >&2; echo more >&2; exit 3", r"failed \(3\): oh no"),
        ("echo credentials not found in native keychain; exit 1", "credentials not found"),
        ("exit 1", "it said nothing"),
        ("echo s3cret", "gave no credential"),
        ("""echo '{"Username":"<token>","Secret":"s3cret"}'""", "identity token"),
    ],
)
async def test_a_helper_that_fails_is_a_denial_with_its_first_words(
    upstream: ScriptedUpstream, helper: Helper, script: str, said: str
) -> None:
    upstream.auth.require_basic(ann="s3cret")
    helper.says(script)
    async with helped(upstream, helper) as registry:
        with pytest.raises(UpstreamDenied, match=said) as caught:
            await registry.head_manifest(BUSYBOX, TAG, deadline=soon())
    assert "s3cret" not in str(caught.value)


async def test_a_helper_that_is_not_there_is_a_denial(
    upstream: ScriptedUpstream, helper: Helper
) -> None:
    upstream.auth.require_basic(ann="s3cret")
    helper.path.unlink()
    async with helped(upstream, helper) as registry:
        with pytest.raises(UpstreamDenied, match="No such file"):
            await registry.head_manifest(BUSYBOX, TAG, deadline=soon())


async def test_a_helper_that_hangs_is_killed_and_counts_as_unavailable(
    upstream: ScriptedUpstream, helper: Helper
) -> None:
    upstream.auth.require_basic(ann="s3cret")
    helper.says("exec sleep 1000")
    settings = replace(upstream.settings(), helper=HelperSettings(str(helper.path)))
    async with open_registry(settings, replace(QUICK, helper_s=0.1)) as registry:
        with pytest.raises(UpstreamUnavailable, match="did not end"):
            await registry.head_manifest(BUSYBOX, TAG, deadline=soon(1.0))


async def test_refused_credentials_of_a_helper_are_asked_for_anew_when_they_are_old(
    upstream: ScriptedUpstream, helper: Helper
) -> None:
    upstream.auth.require_basic(ann="s3cret")
    settings = replace(upstream.settings(), helper=HelperSettings(str(helper.path)))
    async with open_registry(settings, replace(QUICK, helper_renew_s=0.0)) as registry:
        await registry.head_manifest(BUSYBOX, TAG, deadline=soon())
        upstream.auth.users["ann"] = "rotated"
        helper.says("""echo '{"Username":"ann","Secret":"rotated"}'""")
        await registry.head_manifest(BUSYBOX, TAG, deadline=soon())
    assert len(helper.runs) == 2
