"""`migrations ← engine ← server ← tools` holds, and its checker would notice if it did not."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINT = Path(sys.executable).with_name("lint-imports")


def lint(directory: Path) -> subprocess.CompletedProcess[str]:
    command = [str(LINT), "--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)


def test_each_package_imports_only_what_lies_below_it() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_import_against_the_arrow_is_found(tmp_path: Path) -> None:
    for name in ("migrations", "engine", "server", "tools"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    assert lint(tmp_path).returncode == 0
    (tmp_path / "engine" / "wrong.py").write_text("import server\n")
    done = lint(tmp_path)
    assert done.returncode == 1
    assert "engine.wrong -> server" in done.stdout
