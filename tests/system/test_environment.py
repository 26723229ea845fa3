"""The test environment proves what it is used to prove: it can fail."""

import base64
import json
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.fakes.child import Child, ChildFailed, clean_environment
from tests.fakes.clients import Client, ClientFailed, Sandbox
from tests.fakes.clients_containers import SkopeoByAddress, SkopeoByMirror
from tests.fakes.clients_daemons import Containerd, Dockerd
from tests.fakes.distribution import Registry
from tests.fakes.images_catalogue import catalogue
from tests.fakes.token_server import SERVICE, TokenServer
from tests.system.conftest import PASSWORD, USER, require_client
from tests.system.raw import ask

pytestmark = pytest.mark.system


def token_of(tokens: TokenServer, repository: str, user: str, password: str) -> str:
    """Fetch a token as a mirror would."""
    realm = urlsplit(tokens.realm)
    credentials = base64.b64encode(f"{user}:{password}".encode()).decode()
    headers = {"Authorization": f"Basic {credentials}"} if user else {}
    scope = f"repository:{repository}:pull"
    answer = ask(realm.netloc, f"{realm.path}?service={SERVICE}&scope={scope}", headers)
    return str(json.loads(answer.body)["token"]) if answer.status == 200 else ""


@pytest.mark.parametrize(
    ("name", "user", "status"), [("busy", "", 200), ("private", "", 401), ("private", USER, 200)]
)
def test_upstream_serves_private_content_to_the_granted_user_alone(
    upstream: Registry, tokens: TokenServer, name: str, user: str, status: int
) -> None:
    image = getattr(catalogue(), name)
    target = f"/v2/{image.repository}/manifests/{image.top.blob.digest}"
    assert ask(upstream.address, target).status == 401
    token = token_of(tokens, image.repository, user, PASSWORD)
    headers = {"Authorization": f"Bearer {token}", "Accept": image.top.media_type}
    assert ask(upstream.address, target, headers).status == status


def test_the_token_server_refuses_a_wrong_password(tokens: TokenServer) -> None:
    assert token_of(tokens, "library/busy", USER, "wrong") == ""
    assert tokens.requests()[-1].status == 401


def test_upstream_counts_what_it_served_and_not_what_it_refused(upstream: Registry) -> None:
    before = upstream.served()
    assert ask(upstream.address, "/v2/library/busy/tags/list").status == 401
    assert ask(upstream.address, "/").status == 200
    added = upstream.served()[len(before) :]
    assert [(line.path, line.is_content) for line in added] == [
        ("/v2/library/busy/tags/list", False),
        ("/", True),
    ]


@pytest.mark.clients
@pytest.mark.parametrize(
    "kind",
    [SkopeoByAddress, SkopeoByMirror, Containerd, Dockerd],
    ids=lambda kind: kind.name,
)
def test_a_client_whose_mirror_is_down_gets_nothing(kind: type[Client], tmp_path: Path) -> None:
    require_client(kind)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, not listening: refuses
        client = kind(Sandbox(tmp_path / "state"), unused.getsockname()[1])
        with client.running(), pytest.raises(ClientFailed):
            client.pull(catalogue().busy)


def test_waiting_for_a_line_that_never_comes_fails_when_the_child_ends(tmp_path: Path) -> None:
    environment = clean_environment(tmp_path)
    with Child(["sh", "-c", "echo said"], env=environment, log=tmp_path / "log") as child:
        assert child.wait_for("sa(?P<rest>.*)")["rest"] == "id"
        with pytest.raises(ChildFailed, match="said"):
            child.wait_for("unsaid")
        assert child.wait() == 0


def test_a_child_is_gone_when_its_block_ends(tmp_path: Path) -> None:
    environment = clean_environment(tmp_path)
    with Child(["sleep", "600"], env=environment, log=tmp_path / "log") as child:
        assert Path(f"/proc/{child.pid}").exists()
    assert not Path(f"/proc/{child.pid}").exists()
