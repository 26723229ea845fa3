"""The wheel holds the four packages and no more, and works where there is no checkout."""

import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.fakes.child import clean_environment

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
PACKAGES = {"engine", "server", "migrations", "tools"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build it, with the build backend that is installed here."""
    out = tmp_path_factory.mktemp("wheel")
    options = ["--wheel", "--no-isolation", "--outdir", str(out)]
    run(sys.executable, "-m", "build", *options, str(ROOT))
    (built,) = out.glob("*.whl")
    return built


def run(*command: str, cwd: Path = ROOT, env: dict[str, str] | None = None) -> str:
    """Run a command to its end and return its output; its errors are in a failure's message."""
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_owns_exactly_four_names(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    top = {name.partition("/")[0] for name in names}
    assert top == PACKAGES | {f"moorage-{version('moorage')}.dist-info"}


def test_the_wheel_bears_what_is_not_python(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    schema = {f"migrations/{path.name}" for path in (ROOT / "migrations").glob("*.sql")}
    assert schema
    page = {f"server/page/{path.name}" for path in (ROOT / "server" / "page").iterdir()}
    assert page
    assert schema | page | {"engine/py.typed", "server/py.typed"} <= names


def test_an_installed_moorage_runs_from_anywhere(wheel: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", str(venv))
    # Real dependencies, as declared: what pyproject.toml forgets to name is missing here.
    options = ["--python", str(venv / "bin" / "python"), "install", "--quiet"]
    run(sys.executable, "-m", "pip", *options, str(wheel))
    environment = clean_environment(tmp_path)
    program = str(venv / "bin" / "moorage")
    assert version("moorage") in run(program, "--version", cwd=Path("/"), env=environment)
