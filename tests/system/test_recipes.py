"""The README's recipes that other tests do not pull by, as real programs read them."""

import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.fakes.child import ChildFailed, clean_environment
from tests.fakes.clients import Sandbox
from tests.fakes.clients_daemons import Containerd, Dockerd
from tests.fakes.images_catalogue import catalogue
from tests.fakes.mirror import Site
from tests.fakes.readme import MIRROR, blocks
from tests.system.conftest import require_client, skip_client

pytestmark = [pytest.mark.system, pytest.mark.clients]


def find_block(language: str, marker: str) -> str:
    """The one block that holds `marker`."""
    (found,) = [body for body in blocks(language) if marker in body]
    return found


def dind_commands() -> list[list[str]]:
    """What the recipes add to the command line of Docker in Docker."""
    job = yaml.safe_load(find_block("yaml", "docker:dind"))
    runner = tomllib.loads(find_block("toml", "docker:dind"))
    services = [*job["services"], *runner["runners"][0]["docker"]["services"]]
    return [service["command"] for service in services]


class DockerInDocker(Dockerd):
    """dockerd with the recipe's flags, and nothing in its configuration."""

    name = "dockerd-flags"

    def _command(self) -> list[str]:
        command = super()._command()
        (self.work / "daemon.json").write_text("{}")
        return [*command, *(flag.replace(MIRROR, self.mirror) for flag in dind_commands()[0])]


def test_docker_in_docker_pulls_by_the_recipes_flags(site: Site, tmp_path: Path) -> None:
    require_client(DockerInDocker)
    first, second = dind_commands()
    assert first == second
    image = catalogue().busy
    with site.start() as mirror:
        client = DockerInDocker(Sandbox(tmp_path / "state"), mirror.port)
        try:
            with client.running():
                client.pull(image)
                assert not client.expected(image) - client.hash_all(image)
        except ChildFailed as exc:
            skip_client(client.name, f"its daemon does not start here: {exc}")


@pytest.mark.parametrize(
    ("language", "marker"), [("toml", "registry]\n  config_path"), ("yaml", "kind: Cluster")]
)
def test_containerd_finds_the_directory_of_mirrors(
    tmp_path: Path, language: str, marker: str
) -> None:
    require_client(Containerd)
    text = find_block(language, marker)
    if language == "yaml":
        (patch,) = yaml.safe_load(text)["containerdConfigPatches"]
        text = f"version = 2\n{patch}"
    file = tmp_path / "config.toml"
    file.write_text(text)
    dumped = subprocess.run(
        ["containerd", "--config", file, "config", "dump"],
        env=clean_environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    registry = tomllib.loads(dumped)["plugins"]["io.containerd.grpc.v1.cri"]["registry"]
    assert registry["config_path"] == "/etc/containerd/certs.d"


def test_buildkit_is_told_the_same_by_hand_and_on_github() -> None:
    """By its structure: BuildKit's daemon is not among this machine's packages."""
    (step,) = yaml.safe_load(find_block("yaml", "setup-buildx-action"))
    inline = tomllib.loads(step["with"]["buildkitd-config-inline"])
    assert inline == tomllib.loads(find_block("toml", "  http = true"))
    assert inline["registry"]["docker.io"]["mirrors"] == [MIRROR]
    assert inline["registry"][MIRROR]["http"] is True
