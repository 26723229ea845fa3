"""The `auth` section: who may use the mirror.

Invariant: a registry that was configured to ask who its clients are does not start without asking;
what is wrong with its file of accounts is said with the configuration's other problems.
"""

import os
from pathlib import Path

from server.accounts_file import AccountsError, read_accounts
from server.config_schema import OTHER_AUTH_METHODS
from server.config_tree import InvalidValue, Reader, show
from server.settings import HtpasswdSettings

_REQUIRED = {
    "realm": "a name that clients are shown",
    "path": "the path of a file as htpasswd -B makes it",
}


def build_auth(auth: Reader) -> HtpasswdSettings | None:
    """Build the settings of client authentication; None where clients are not asked.

    Reads the file of accounts if it is there; a missing one is made at start.
    """
    for method in OTHER_AUTH_METHODS:
        if method in auth:
            auth.add_problem(method, f"the auth method {method}", "htpasswd, or none")
    if "htpasswd" not in auth:
        return None
    if "none" in auth:
        auth.add_problem("none", "two auth methods", "one")
    return _build_htpasswd(auth.section("htpasswd"))


def _build_htpasswd(htpasswd: Reader) -> HtpasswdSettings | None:
    for key, expected in _REQUIRED.items():
        if not htpasswd.node(key):
            htpasswd.add_problem(key, "nothing", expected)
    realm = htpasswd.text("realm")
    path = htpasswd.value("path", _parse_path, None)
    if realm is None or path is None:
        return None
    _check_accounts(htpasswd, path)
    return HtpasswdSettings(realm, path)


def _parse_path(text: str) -> Path:
    if "\0" in text:
        raise InvalidValue("a file's path")
    return Path(text).absolute()


def _check_accounts(htpasswd: Reader, path: Path) -> None:
    if not os.path.exists(path):
        return
    try:
        accounts = read_accounts(path)
    except AccountsError as exc:
        found = f"{show(str(path))}, {exc.reason}"
        htpasswd.add_problem("path", found, "a readable file of USER:HASH lines")
        return
    if not accounts.hashes:
        kind = "a directory" if path.is_dir() else "a file without accounts"
        htpasswd.warn("path", f"{kind}: NOBODY can log in until it is a file of accounts")
