"""The image: built by a real builder as its Containerfile says, and run by a real engine."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.fakes import python_base
from tests.fakes.child import Child, clean_environment
from tests.fakes.mirror import Mirror
from tests.fakes.readme import ROOT, commands
from tests.system.conftest import skip_client

pytestmark = [pytest.mark.system, pytest.mark.clients]

# The README's own commands.
BUILD, RUN = (command for command in commands() if command.startswith("podman "))
BASE, IMAGE = "localhost/python-base", "moorage"
USER = 10001


@dataclass(frozen=True, slots=True)
class Engine:
    """buildah and podman with a store of their own."""

    work: Path

    @property
    def environment(self) -> dict[str, str]:
        return clean_environment(self.work, CONTAINERS_STORAGE_CONF=str(self.work / "storage.conf"))

    def argv(self, program: str, *arguments: str) -> list[str]:
        places = ["--root", str(self.work / "store"), "--runroot", str(self.work / "run")]
        # podman would rather have crun, where that is installed, which refuses hybrid cgroups.
        runtime = ["--runtime", "runc"] if program == "podman" else []
        return [program, *places, "--storage-driver", "overlay", *runtime, *arguments]

    def call(self, program: str, *arguments: str) -> str:
        done = subprocess.run(
            self.argv(program, *arguments),
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert done.returncode == 0, f"{program} {arguments}: {done.stderr}\n{done.stdout}"
        return done.stdout

    def run_options(self, name: str) -> list[str]:
        """Run as the compose file has it; limits on files are not this machine's to raise."""
        tight = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
        limits = ["--ulimit=nofile=4096:4096", "--ulimit=nproc=1024:1024"]
        return ["run", "--rm", f"--name={name}", "--network=host", *tight, *limits]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """Have the image built on a base of this machine's files."""
    missing = [program for program in ("buildah", "podman", "runc") if not shutil.which(program)]
    if obstacle := python_base.find_obstacle():
        skip_client("image", obstacle)
    if os.geteuid() != 0 or missing:
        skip_client("image", f"not installed: {', '.join(missing)}" if missing else "needs root")
    # podman refuses a runroot of more than 50 characters.
    work = Path(tempfile.mkdtemp(prefix="moorage-", dir="/tmp"))
    engine = Engine(work)
    try:
        _write_configuration(work)
        _make_base(engine)
        _build(engine)
        yield engine
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _write_configuration(work: Path) -> None:
    (work / "storage.conf").write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{work}/store"\nrunroot = "{work}/run"\n'
    )
    policy = {"default": [{"type": "insecureAcceptAnything"}]}
    (work / "policy.json").write_text(json.dumps(policy))


def _make_base(engine: Engine) -> None:
    root = engine.work / "root"
    root.mkdir()
    python_base.make_root(root)
    container = engine.call("buildah", "from", "scratch").strip()
    engine.call("buildah", "copy", "--quiet", container, str(root), "/")
    engine.call("buildah", "commit", "--quiet", container, BASE)
    engine.call("buildah", "rm", container)
    shutil.rmtree(root)


def _build(engine: Engine) -> None:
    """Build as the README says, on our base, with this machine's way to a package index."""
    program, build, *words = BUILD.split()
    options = ["--isolation=chroot", "--network=host", f"--build-arg=PYTHON_IMAGE={BASE}"]
    options += [
        f"--signature-policy={engine.work}/policy.json",
        "--volume=/etc/hosts:/etc/hosts:ro",
    ]
    engine.call(program, build, *options, *words)


def test_the_image_says_how_it_is_to_be_run(engine: Engine) -> None:
    (inspected,) = json.loads(engine.call("podman", "image", "inspect", IMAGE))
    config = inspected["Config"]
    assert config["User"] == f"{USER}:{USER}"
    assert list(config["Volumes"]) == ["/var/lib/registry"]
    assert list(config["ExposedPorts"]) == ["5000/tcp"]
    assert config["StopSignal"] == "SIGTERM"
    assert (config["Entrypoint"], config["Cmd"]) == (["moorage"], ["serve"])
    assert inspected["Healthcheck"]["Test"] == ["CMD", "moorage", "healthcheck"]


def test_it_serves_is_healthy_and_stops_cleanly(engine: Engine, tmp_path: Path) -> None:
    argv = engine.argv("podman", *engine.run_options("serving"))
    argv += ["--env=REGISTRY_HTTP_ADDR=127.0.0.1:0", IMAGE]
    with Child(argv, env=engine.environment, log=tmp_path / "log") as child:
        mirror = Mirror(child)
        inside = ("exec", "serving")
        healthy = engine.call("podman", *inside, "moorage", "healthcheck")
        assert healthy == "is_alive\tyes\n"
        engine.call("podman", "healthcheck", "run", "serving")
        whoami = ("python3", "-c", "import os; print(os.getuid())")
        assert int(engine.call("podman", *inside, *whoami)) == USER
        summary = engine.call("podman", *inside, "moorage", "inspect-index", "summary")
        assert summary.startswith("data_directory\t/var/lib/registry\n")
        assert mirror.drain() == 0


def test_it_runs_as_the_readme_says_with_its_cache_in_a_volume(
    engine: Engine, tmp_path: Path
) -> None:
    """As written, but in the foreground, and on a port of this machine's own."""
    program, run, *words = RUN.split()
    words.remove("--detach")
    del words[words.index("--publish") : words.index("--publish") + 2]
    _, *own = engine.run_options("running")
    argv = engine.argv(program, run, "--env=REGISTRY_HTTP_ADDR=127.0.0.1:0", *own, *words)
    for _ in range(2):  # the second on what the first left
        with Child(argv, env=engine.environment, log=tmp_path / "log") as child:
            assert Mirror(child).drain() == 0
    place = engine.call("podman", "volume", "inspect", "moorage", "--format={{.Mountpoint}}")
    assert (Path(place.strip()) / "index.snapshot").exists()


@pytest.mark.parametrize("place", ["/etc/distribution", "/etc/docker/registry"])
def test_a_configuration_is_found_where_the_official_images_have_theirs(
    engine: Engine, tmp_path: Path, place: str
) -> None:
    file = tmp_path / "config.yml"
    file.write_text("version: 0.1\nproxy: {remoteurl: https://quay.io}\n")
    volume = f"--volume={file}:{place}/config.yml:ro"
    shown = engine.call("podman", *engine.run_options("checking"), volume, IMAGE, "check-config")
    assert yaml.safe_load(shown)["proxy"]["remoteurl"] == "https://quay.io"


def test_the_image_has_what_serving_needs_and_no_installer(engine: Engine) -> None:
    names = ("engine", "server", "migrations", "tools", "pip", "pytest")
    code = f"from importlib.util import find_spec; print(*filter(find_spec, {names}))"
    options = [*engine.run_options("listing"), "--entrypoint=/opt/moorage/bin/python"]
    shown = engine.call("podman", *options, IMAGE, "-c", code)
    assert shown.split() == ["engine", "server", "migrations", "tools"]
