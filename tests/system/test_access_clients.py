"""Access rules as real clients meet them: what is allowed comes whole, the rest not at all."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.fakes.accounts import write_accounts
from tests.fakes.clients import Client, ClientFailed, Sandbox
from tests.fakes.clients_as_users import ContainerdAsUser, PodmanAsUser, SkopeoAsUser
from tests.fakes.distribution import Registry
from tests.fakes.images import Image
from tests.fakes.images_catalogue import catalogue
from tests.fakes.mirror import Mirror, Site
from tests.system.conftest import require_client

pytestmark = [pytest.mark.system, pytest.mark.clients]

RULES = [
    {"users": ["ops"], "allow": ["*"]},
    {"users": ["ci-*"], "allow": ["docker.io/library/*"]},
]


@dataclass(frozen=True, slots=True)
class Rig:
    """A mirror with rules, and what its upstream sees."""

    mirror: Mirror
    upstream: Registry
    directory: Path

    def sandbox(self) -> Sandbox:
        return Sandbox(self.directory / "state")

    def check(self, client: Client, image: Image) -> None:
        """Check every byte of what was pulled."""
        assert not client.expected(image) - client.hash_all(image)

    def refuse(self, pull: Callable[[Image], None], image: Image) -> str:
        """Pull in vain; upstream hears nothing of it. Gives what the client said."""
        before = self.upstream.counts()
        with pytest.raises(ClientFailed) as caught:
            pull(image)
        assert self.upstream.counts() == before
        self.mirror.child.wait_for(
            rf"access denied rule=access\.default repository=docker\.io/{image.repository} "
            r"remote=127\.0\.0\.1 user=ci-1 "
        )
        return str(caught.value)


@pytest.fixture
def rig(site: Site, upstream: Registry, tmp_path: Path) -> Iterator[Rig]:
    path = tmp_path / "htpasswd"
    write_accounts(path, **{"ci-1": "right", "ops": "also right"})
    auth = {"htpasswd": {"realm": "mirror", "path": str(path)}}
    config = site.config | {"auth": auth, "access": {"rules": RULES}}
    with replace(site, config=config).start() as mirror:
        yield Rig(mirror, upstream, tmp_path)


def test_skopeo_is_told_which_rule_denied_it(rig: Rig) -> None:
    require_client(SkopeoAsUser)
    client = SkopeoAsUser(rig.sandbox(), rig.mirror.port)
    allowed, denied = catalogue().busy, catalogue().pair
    client.pull_as(allowed, "ci-1:right")
    rig.check(client, allowed)
    said = rig.refuse(lambda image: client.pull_as(image, "ci-1:right"), denied)
    assert "denied by access.default in the configuration of this mirror" in said
    client.pull_as(denied, "ops:also right")
    rig.check(client, denied)
    rig.refuse(lambda image: client.pull_as(image, "ci-1:right"), denied)


def test_podman_logs_in_and_pulls_what_is_allowed(rig: Rig) -> None:
    require_client(PodmanAsUser)
    client = PodmanAsUser(rig.sandbox(), rig.mirror.port)
    allowed, denied = catalogue().busy, catalogue().pair
    with pytest.raises(ClientFailed, match="invalid username/password"):
        client.log_in("ci-1", "wrong")
    client.log_in("ci-1", "right")
    client.pull(allowed)
    rig.check(client, allowed)
    rig.refuse(client.pull, denied)


def test_containerd_turns_to_the_registry_itself(rig: Rig) -> None:
    """Where that is out of reach, its pull fails at once."""
    require_client(ContainerdAsUser)
    client = ContainerdAsUser(rig.sandbox(), rig.mirror.port)
    allowed, denied = catalogue().busy, catalogue().pair
    with client.running():
        client.log_in("ci-1", "right")
        client.pull(allowed)
        rig.check(client, allowed)
        said = rig.refuse(client.pull, denied)
        assert "registry-1.docker.io" in said
        client.log_in("ops", "also right")
        client.pull(denied)
