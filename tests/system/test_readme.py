"""Every command in the README runs as it is written, and every file in it is well-formed."""

import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from engine.platforms import own_platform
from tests.component.adopting import storage_of
from tests.fakes.child import Child, clean_environment
from tests.fakes.clients import Sandbox
from tests.fakes.distribution import Registry
from tests.fakes.images_catalogue import catalogue
from tests.fakes.mirror import PROGRAM, Mirror, site_of
from tests.fakes.readme import MIRROR, ROOT, blocks, commands
from tests.fakes.stocked import Stock, stock
from tests.fakes.upstream import ThreadedUpstream
from tests.fakes.upstream_content import IMAGE_INDEX, MANIFEST, descriptor
from tests.system.conftest import PASSWORD, USER, skip_client
from tests.system.test_container import BUILD, RUN
from tools.bench_servers import find_program

pytestmark = pytest.mark.system

CONFIG = "version: 0.1\nhttp: {addr: 127.0.0.1:0}\nproxy: {remoteurl: http://127.0.0.1:1}\n"


def _serve(command: str, tmp_path: Path) -> None:
    """Run a server command on a free port; it must come up, answer, and stop with 0."""
    (tmp_path / "config.yml").write_text(CONFIG)
    words = command.replace("/srv/moorage", str(tmp_path / "data")).split()
    if "config.yml" not in words and MIRROR not in words:
        words += ["--listen", MIRROR]
    words = [word.replace(MIRROR, "127.0.0.1:0") for word in words]
    words[0] = str(ROOT / words[0])
    words[1:] = [str(tmp_path / word) if word == "config.yml" else word for word in words[1:]]
    environment = clean_environment(tmp_path, PATH=os.environ["PATH"])
    with Child(words, env=environment, log=tmp_path / "log") as child:
        mirror = Mirror(child)
        assert mirror.drain() == 0


def _check_config(command: str, tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text(CONFIG)
    words = [str(PROGRAM), *command.split()[1:]]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["proxy"]["remoteurl"] == "http://127.0.0.1:1"


def _is_what_ci_runs(command: str, tmp_path: Path) -> None:
    """The command that runs this test: it cannot run itself, but it is what CI calls."""
    assert os.access(ROOT / command, os.X_OK)
    assert command in (ROOT / ".ci" / "run").read_text()


def _bench(command: str, tmp_path: Path) -> None:
    """Measure; of the long run only what is quick."""
    for program in ("wrk", "nginx"):
        if find_program(program) is None:
            pytest.skip(f"not installed: {program}")
    words = command.split()
    if "--quick" not in words:
        words += ["--quick", "--only", "blob-1k", "--target", "moorage"]
    done = subprocess.run(
        [str(ROOT / words[0]), *words[1:]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "case=blob-1k target=moorage" in done.stdout


RUNNERS: dict[str, Callable[[str, Path], None]] = {
    "tools/run": _serve,
    "tools/run --upstream https://ghcr.io --data /srv/moorage --listen 127.0.0.1:5000": _serve,
    "tools/run config.yml": _serve,
    "tools/test": _is_what_ci_runs,
    ".venv/bin/moorage check-config config.yml": _check_config,
    "tools/bench": _bench,
    "tools/bench --quick --only blob-1k": _bench,
}
SKOPEO = (
    "skopeo copy --src-tls-verify=false "
    "docker://127.0.0.1:5000/library/busybox:1.35 oci:busybox:1.35"
)


TOOLS = [command for command in commands() if command.startswith("moorage ")]
# These are for a mirror that runs.
RUNNING = [command for command in TOOLS if command.split()[1] in ("warm", "status", "top", "drain")]


def test_every_command_has_a_test() -> None:
    assert set(commands()) == {*RUNNERS, *TOOLS, SKOPEO, BUILD, RUN}


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Stock:
    return stock(tmp_path_factory.mktemp("stock"))


@pytest.mark.parametrize("command", RUNNING)
def test_a_tool_runs_as_written_on_a_running_mirror(command: str, tmp_path: Path) -> None:
    with ThreadedUpstream() as upstream:
        for repository, tag in (("busybox", "1.35"), ("org/app", "v1")):
            add_images(upstream, repository, tag)
        (tmp_path / "images.txt").write_text("busybox:1.35\n")
        site = site_of(tmp_path / "mirror", upstream.upstream.url, namespaces=["docker.io"])
        site.config["upstreams"] = {"ghcr.io": {"remoteurl": upstream.upstream.url}}
        with site.start():
            words = [str(PROGRAM), *shlex.split(command)[1:], "--data", str(site.data)]
            if words[1:] == ["top", "--data", str(site.data)]:
                words += ["--count", "1"]  # nobody is there to press q
            done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr


def add_images(upstream: ThreadedUpstream, repository: str, tag: str) -> None:
    """Add an image for two platforms, and this machine's."""
    content, entries = upstream.upstream.content, []
    for platform in {"linux/amd64", "linux/arm64", str(own_platform())}:
        image = content.add_image(repository, None, (platform.encode(),))
        system, architecture = platform.split("/")
        named = {"os": system, "architecture": architecture}
        entries.append({**descriptor(MANIFEST, image.body), "platform": named})
    body = json.dumps({"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": entries})
    content.add_manifest(repository, body.encode(), IMAGE_INDEX, tag)


@pytest.mark.parametrize("command", [command for command in TOOLS if command not in RUNNING])
def test_a_tool_runs_as_written(command: str, stocked: Stock, tmp_path: Path) -> None:
    data = shutil.copytree(stocked.path, tmp_path / "data")
    digest = next(iter(stocked.images.values())).manifest
    registry = storage_of(tmp_path / "registry", catalogue().busy).directory
    command = command.replace("sha256:…", digest).replace("/var/lib/registry", str(registry))
    words = shlex.split(command)[1:]
    done = subprocess.run(
        [str(PROGRAM), *words, "--data", str(data)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", RUNNERS)
def test_a_command_runs_as_written(command: str, tmp_path: Path) -> None:
    RUNNERS[command](command, tmp_path)


@pytest.mark.clients
def test_the_direct_pull_runs_as_written(upstream: Registry, tmp_path: Path) -> None:
    if shutil.which("skopeo") is None:
        skip_client("skopeo", "not installed")
    image = catalogue().busy
    with site_of(tmp_path / "mirror", upstream.url, USER, PASSWORD).start() as mirror:
        sandbox = Sandbox(tmp_path / "state")
        command = SKOPEO.replace(MIRROR, mirror.address)
        command = command.replace("library/busybox:1.35", f"{image.repository}:{image.tag}")
        command = command.replace("oci:busybox", f"oci:{tmp_path / 'busybox'}")
        skopeo, *words = command.split()
        sandbox.run(skopeo, "--insecure-policy", *words)
    assert (tmp_path / "busybox" / "index.json").exists()


def test_what_needs_another_machine_names_files_that_are_here() -> None:
    """systemctl, docker compose and kubectl cannot run in a test: their files are checked."""
    console = "".join(blocks("console"))
    named = set(re.findall(r"tools/deploy/[\w.]+", console))
    assert {Path(path).name for path in named} == {
        "moorage.service",
        "compose.yaml",
        "kubernetes.yaml",
        "servicemonitor.yaml",
    }
    assert all((ROOT / path).is_file() for path in named)


@pytest.mark.parametrize(
    ("language", "parse"),
    [("json", json.loads), ("toml", tomllib.loads), ("yaml", yaml.safe_load)],
)
def test_every_file_is_well_formed(language: str, parse: Callable[[str], object]) -> None:
    assert blocks(language)
    for block in blocks(language):
        parse(block)
