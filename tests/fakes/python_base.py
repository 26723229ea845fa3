"""A base image with Python, made of this machine's own files, where no registry can be asked.

It has what the official Python image has for a Containerfile: `python3` with venv and pip in
/usr/local, a shell and a few commands, the C library, and the certificates that are trusted here.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

_COMMANDS = ("sh", "mkdir", "ln", "chown", "chmod", "sleep")
_LIBRARIES = "lib/x86_64-linux-gnu"
_LOADER = "lib64/ld-linux-x86-64.so.2"
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_LEFT_OUT = shutil.ignore_patterns("site-packages", "test", "__pycache__", "idlelib", "config-3*")


def find_obstacle() -> str | None:
    """Say why no base image can be made here; None where nothing speaks against it."""
    if not Path("/", _LOADER).exists():
        return "needs Debian on x86-64"
    if shutil.which("busybox") is None:
        return "not installed: busybox-static"
    return None if _CERTIFICATES.exists() else "not installed: ca-certificates"


def make_root(root: Path) -> None:
    """Fill the empty directory `root`."""
    library = Path(os.__file__).parent
    shutil.copytree(library, root / "usr/local/lib" / library.name, symlinks=True, ignore=_LEFT_OUT)
    (root / "usr/local/lib" / library.name / "site-packages").mkdir()
    python = Path(sys.executable).resolve()
    _copy(python, root / "usr/local/bin" / library.name)
    (root / "usr/local/bin/python3").symlink_to(library.name)
    for path in _find_libraries(python, library / "lib-dynload"):
        _copy(path, root / _LIBRARIES / path.name)
    _copy(Path("/", _LOADER), root / _LOADER)
    _copy(Path(shutil.which("busybox") or ""), root / "bin/busybox")
    for command in _COMMANDS:
        (root / "bin" / command).symlink_to("busybox")
    _copy(_CERTIFICATES, root / str(_CERTIFICATES).lstrip("/"))
    # pip otherwise trusts only what it bears itself.
    (root / "etc/pip.conf").write_text(f"[global]\ncert = {_CERTIFICATES}\n")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    for name, mode in (("tmp", 0o1777), ("root", 0o700), ("var/lib", 0o755)):
        (root / name).mkdir(parents=True)
        (root / name).chmod(mode)


def _find_libraries(python: Path, extensions: Path) -> set[Path]:
    """Find what Python and its extensions load, and what other wheels may load besides."""
    files = [str(python), *map(str, extensions.glob("*.so"))]
    loaded = subprocess.run(["ldd", *files], capture_output=True, text=True, check=True).stdout
    packages = ["libc6", "libgcc-s1", "libstdc++6"]
    listed = subprocess.run(["dpkg", "-L", *packages], capture_output=True, text=True, check=True)
    found = re.findall(r"=> (/\S+)", loaded)
    found += re.findall(r"^/\S*lib/x86_64-linux-gnu/[^/\s]+\.so\S*$", listed.stdout, re.MULTILINE)
    return {Path(path) for path in found}


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target, follow_symlinks=True)
