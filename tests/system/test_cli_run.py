"""`tools/run`: makes its venv once, again when it must, and says what it lacks.

Python and pip are stand-ins that note what they are asked, so nothing is downloaded.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]

# Stands for python3 and for the venv's python: `venv` makes a copy of it, `pip install` a moorage.
PYTHON = """#!/bin/bash
echo "$(basename "$(dirname "$0")")/$(basename "$0") $*" >>"$LOG"
case "$*" in
"-c "*) exit "${TOO_OLD:-0}" ;;
"-m venv --clear "*)
    rm -rf "$4" && mkdir -p "$4/bin" && cp "$0" "$4/bin/python"
    ;;
"-m pip --version") exit 0 ;;
"-m pip install "*)
    [ -z "${PIP_FAILS:-}" ] || exit 1
    printf '#!/bin/bash\\nprintf "<%%s>" "$PWD" "$@"\\n' >"$(dirname "$0")/moorage"
    chmod +x "$(dirname "$0")/moorage"
    ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with a space in its name."""
    root = tmp_path / "check out"
    (root / "tools").mkdir(parents=True)
    shutil.copy(ROOT / "tools" / "run", root / "tools" / "run")
    (root / "pyproject.toml").write_text("[project]\n")
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python3"
    python.write_text(PYTHON)
    python.chmod(0o755)
    return root


def run(checkout: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [checkout / "tools" / "run", *arguments],
        cwd="/",
        env={
            "PATH": f"{checkout.parent / 'bin'}:/usr/bin:/bin",
            "PYTHON": "python3",
            "LOG": str(checkout.parent / "log"),
            **environ,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def count_installs(checkout: Path) -> int:
    return (checkout.parent / "log").read_text().count("-m pip install")


def count_venvs(checkout: Path) -> int:
    return (checkout.parent / "log").read_text().count("-m venv")


def test_it_serves_with_the_arguments_as_given_from_any_directory(checkout: Path) -> None:
    done = run(checkout, "a b", "--data", "")
    assert (done.returncode, done.stdout) == (0, "</><serve><a b><--data><>")
    link = checkout.parent / "moorage"
    link.symlink_to(checkout / "tools" / "run")
    linked = subprocess.run(
        [link], env=os.environ | {"LOG": os.devnull}, capture_output=True, check=True, timeout=60
    )
    assert linked.stdout.endswith(b"<serve>")


@pytest.mark.parametrize("command", ["inspect-index", "verify-digests"])
def test_its_links_run_the_commands_of_their_names(checkout: Path, command: str) -> None:
    link = checkout / "tools" / command
    link.symlink_to("run")
    assert (ROOT / "tools" / command).resolve() == ROOT / "tools" / "run"
    done = subprocess.run(
        [link, "--json", "a b"],
        env={"PATH": f"{checkout.parent / 'bin'}:/usr/bin:/bin", "LOG": os.devnull},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == f"</><{command}><--json><a b>"


def test_it_installs_once(checkout: Path) -> None:
    for _ in range(3):
        assert run(checkout).returncode == 0
    assert (count_venvs(checkout), count_installs(checkout)) == (1, 1)


def test_it_installs_again_when_pyproject_changes_and_keeps_the_venv(checkout: Path) -> None:
    run(checkout)
    (checkout / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert run(checkout).returncode == 0
    assert (count_venvs(checkout), count_installs(checkout)) == (1, 2)


def test_it_installs_again_when_the_checkout_was_moved(checkout: Path) -> None:
    run(checkout)
    moved = checkout.rename(checkout.with_name("moved"))
    assert run(moved).returncode == 0
    assert count_installs(moved) == 2


def test_an_installation_that_failed_is_done_again(checkout: Path) -> None:
    failed = run(checkout, PIP_FAILS="1")
    assert (failed.returncode, failed.stdout) == (2, "")
    assert "pip could not install" in failed.stderr
    assert run(checkout).stdout == "</><serve>"


def test_a_venv_that_was_half_made_is_made_again(checkout: Path) -> None:
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / ".venv" / "bin" / "moorage").write_text("broken")
    assert run(checkout).stdout == "</><serve>"
    assert count_venvs(checkout) == 1


def test_two_first_uses_at_once_install_once(checkout: Path) -> None:
    environ = {"PATH": f"{checkout.parent / 'bin'}:/usr/bin:/bin", "PYTHON": "python3"}
    log = str(checkout.parent / "log")
    children = [
        subprocess.Popen(
            [checkout / "tools" / "run"], env=environ | {"LOG": log}, stdout=subprocess.PIPE
        )
        for _ in range(2)
    ]
    outputs = [child.communicate(timeout=60)[0] for child in children]
    assert all(output.endswith(b"<serve>") for output in outputs)
    assert count_installs(checkout) == 1


def test_without_a_python_that_is_new_enough_it_says_so(checkout: Path) -> None:
    for name in ("python3.11", "python3.12", "python3.13", "python3.14"):
        shutil.copy(checkout.parent / "bin" / "python3", checkout.parent / "bin" / name)
    refused = run(checkout, TOO_OLD="1")
    assert refused.returncode == 2
    assert refused.stderr == (
        "tools/run: found no Python of version 3.11 or later; "
        "install one, or name it: PYTHON=… tools/run\n"
    )
