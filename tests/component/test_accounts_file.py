"""The file of accounts: made once, seen when it changes, and named in what is wrong with it."""

import os
import stat
from base64 import b64encode
from pathlib import Path

import bcrypt
import pytest

from server.accounts_file import AccountsError, provision, read_accounts, take_stamp
from server.htpasswd import parse_credentials

LINE = b"ci:" + bcrypt.hashpw(b"a password", bcrypt.gensalt(4)) + b"\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "htpasswd"


def test_a_missing_file_is_made_with_an_account_that_works(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "htpasswd"
    password = provision(path)
    assert password is not None
    assert len(password) >= 32
    credentials = parse_credentials(b"Basic " + b64encode(f"docker:{password}".encode()))
    assert credentials is not None
    assert read_accounts(path).admits(credentials)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert password.encode() not in path.read_bytes()


def test_each_file_gets_a_password_of_its_own(tmp_path: Path) -> None:
    assert provision(tmp_path / "a") != provision(tmp_path / "b")


def test_a_file_that_is_there_is_left_alone(path: Path) -> None:
    path.write_bytes(b"")
    assert provision(path) is None
    assert path.read_bytes() == b""
    assert provision(path.parent) is None


def test_a_file_that_cannot_be_made_is_named(path: Path) -> None:
    path.write_bytes(LINE)
    with pytest.raises(AccountsError) as caught:
        provision(path / "htpasswd")
    assert str(caught.value).startswith(f"{path / 'htpasswd'}: cannot be made: ")


def test_a_directory_holds_no_accounts(tmp_path: Path) -> None:
    assert read_accounts(tmp_path).hashes == {}


def test_a_malformed_line_is_named_by_file_and_number(path: Path) -> None:
    path.write_bytes(LINE + b"bob\n")
    with pytest.raises(AccountsError) as caught:
        read_accounts(path)
    assert str(caught.value) == f"{path}: line 2: no colon between a user and a hash"


def test_a_file_that_is_not_there_is_named(path: Path) -> None:
    with pytest.raises(AccountsError, match="No such file or directory"):
        read_accounts(path)


def test_a_stamp_tells_states_apart(path: Path) -> None:
    assert take_stamp(path) is None
    path.write_bytes(LINE)
    first = take_stamp(path)
    assert first is not None
    assert take_stamp(path) == first
    os.utime(path, ns=(0, 1))
    touched = take_stamp(path)
    path.write_bytes(LINE * 2)
    os.utime(path, ns=(0, 1))
    grown = take_stamp(path)
    # Another file in its place, of the same size and age.
    other = path.with_name("other")
    other.write_bytes(LINE * 2)
    os.utime(other, ns=(0, 1))
    other.replace(path)
    assert len({first, touched, grown, take_stamp(path)}) == 4


def test_a_stamp_follows_a_link_as_mounted_secrets_are_swapped(path: Path) -> None:
    for name in ("old", "new"):
        path.with_name(name).write_bytes(LINE)
        os.utime(path.with_name(name), ns=(0, 1))
    path.symlink_to("old")
    before = take_stamp(path)
    path.unlink()
    path.symlink_to("new")
    assert take_stamp(path) != before
