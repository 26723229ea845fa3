"""htpasswd files and Basic credentials: what counts, and what is refused with its line."""

from base64 import b64encode

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.htpasswd import (
    Accounts,
    Credentials,
    MalformedLine,
    parse_accounts,
    parse_credentials,
)

# "a password", at the lowest cost; as htpasswd -B writes it.
HASH = b"$2y$04$" + bcrypt.hashpw(b"a password", bcrypt.gensalt(4))[7:]


def basic(text: bytes, scheme: bytes = b"Basic") -> bytes:
    return b"%b %b" % (scheme, b64encode(text))


def test_accounts_are_read_past_comments_blanks_and_line_ends() -> None:
    data = b"# made by hand\r\n\n  ci:%b  \r\n\t\n#bob:no hash\nr\xc3\xa9gis:%b" % (HASH, HASH)
    assert parse_accounts(data).hashes == {b"ci": HASH, "régis".encode(): HASH}
    assert parse_accounts(b"").hashes == {}


def test_the_last_line_of_a_user_counts() -> None:
    other = bcrypt.hashpw(b"another", bcrypt.gensalt(4))
    assert parse_accounts(b"ci:%b\nci:%b\n" % (HASH, other)).hashes == {b"ci": other}


@pytest.mark.parametrize("version", [b"$2a$", b"$2b$", b"$2y$"])
def test_each_version_of_a_hash_works(version: bytes) -> None:
    accounts = parse_accounts(b"ci:" + version + HASH[4:])
    assert accounts.admits(Credentials(b"ci", b"a password"))
    assert not accounts.admits(Credentials(b"ci", b"another"))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"ci", "no colon between a user and a hash"),
        (b"$2y$05$abc", "no colon between a user and a hash"),
        (b":" + HASH, "the user has not 1 to 255 bytes"),
        (b"u" * 256 + b":" + HASH, "the user has not 1 to 255 bytes"),
        (b"ci:", "the hash is not bcrypt's (htpasswd -B makes those)"),
        (b"ci:hunter2", "the hash is not bcrypt's (htpasswd -B makes those)"),
        (b"ci:$apr1$r31.....$HqJZimcKQFAMYayBlzkrA/", "the hash is not bcrypt's"),
        (b"ci:{SHA}VBPuJHI7uixaa6LQGWx4s+5GKNE=", "the hash is not bcrypt's"),
        (b"ci:" + HASH.replace(b"$2y$", b"$2x$"), "the hash is not bcrypt's"),
        (b"ci:" + HASH.replace(b"$04$", b"$03$"), "the hash is not bcrypt's"),
        (b"ci:" + HASH.replace(b"$04$", b"$32$"), "the hash is not bcrypt's"),
        (b"ci:" + HASH[:28] + b"/" + HASH[29:], "the hash is not bcrypt's"),
        (b"ci:" + HASH[:-1] + b"/", "the hash is not bcrypt's"),
        (b"ci:" + HASH[:-1], "the hash is not bcrypt's"),
        (b"ci:" + HASH + b".", "the hash is not bcrypt's"),
        (b"ci: " + HASH, "the hash is not bcrypt's"),
        (b"ci:" + HASH + b":comment", "the hash is not bcrypt's"),
    ],
)
def test_a_line_that_is_no_account_is_refused_by_its_number(line: bytes, reason: str) -> None:
    with pytest.raises(MalformedLine) as caught:
        parse_accounts(b"# comment\n\nbob:%b\n%b\nx\n" % (HASH, line))
    assert caught.value.number == 4
    assert caught.value.reason.startswith(reason)
    assert "hunter2" not in str(caught.value)


@given(st.binary())
def test_any_file_is_read_or_refused_by_line(data: bytes) -> None:
    try:
        accounts = parse_accounts(data)
    except MalformedLine as exc:
        number = exc.number
    else:
        assert all(accounts.hashes)
        return
    assert data.splitlines()[number - 1].strip()


@given(
    st.from_regex(rb"\A\$2[aby]\$04\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{30}[.CGKOSWaeimquy26]\Z"),
    st.binary(max_size=100),
)
def test_any_hash_that_is_accepted_can_be_checked(hashed: bytes, password: bytes) -> None:
    credentials = parse_credentials(basic(b"ci:" + password))
    assert credentials is None or not parse_accounts(b"ci:" + hashed).admits(credentials)


def test_nobody_logs_in_where_there_are_no_accounts() -> None:
    assert not Accounts().admits(Credentials(b"ci", b"a password"))


def test_an_unknown_user_is_refused_even_with_the_password_that_is_checked() -> None:
    assert not Accounts({b"ci": HASH}).admits(Credentials(b"bob", b"a password"))


def test_an_unknown_user_costs_as_much_as_the_costliest(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[bytes] = []
    costly = HASH.replace(b"$04$", b"$12$")
    accounts = Accounts({b"a": HASH, b"b": costly, b"c": HASH})

    def check(password: bytes, hashed: bytes) -> bool:
        checked.append(hashed)
        return True

    monkeypatch.setattr(bcrypt, "checkpw", check)
    assert accounts.admits(Credentials(b"a", b""))
    assert not accounts.admits(Credentials(b"unknown", b""))
    assert checked == [HASH, costly]


@pytest.mark.parametrize(
    ("field", "user", "password"),
    [
        (basic(b"ci:a password"), b"ci", b"a password"),
        (basic(b"ci:a:b:"), b"ci", b"a:b:"),
        (basic(b"ci:"), b"ci", b""),
        (basic(b"ci:x", b"bAsIc"), b"ci", b"x"),
        (basic(b"ci:x", b"Basic  ") + b" ", b"ci", b"x"),
        (basic("ré:ü".encode()), "ré".encode(), "ü".encode()),
        (basic(b"u" * 255 + b":x"), b"u" * 255, b"x"),
    ],
)
def test_basic_credentials_are_read(field: bytes, user: bytes, password: bytes) -> None:
    assert parse_credentials(field) == Credentials(user, password)


@pytest.mark.parametrize(
    "field",
    [
        b"",
        b"Basic",
        b"Basic ",
        b"Basic *",
        b"Basic Y2k",  # without padding
        basic(b"ci"),
        basic(b":"),  # what podman sends for nobody
        basic(b":x"),
        basic(b"ci:a\0b"),
        basic(b"u" * 256 + b":x"),
        basic(b"ci:x", b"Bearer"),
        basic(b"ci:x") + b", " + basic(b"ci:x"),
    ],
)
def test_what_cannot_name_an_account_is_nobodys(field: bytes) -> None:
    assert parse_credentials(field) is None


def test_a_password_counts_to_what_bcrypt_looks_at() -> None:
    hashed = bcrypt.hashpw(b"p" * 72, bcrypt.gensalt(4))
    credentials = parse_credentials(basic(b"ci:" + b"p" * 100))
    assert credentials is not None
    assert Accounts({b"ci": hashed}).admits(credentials)


def test_no_secret_is_shown() -> None:
    assert "hunter2" not in repr(Credentials(b"ci", b"hunter2"))
    assert "$2y$" not in repr(Accounts({b"ci": HASH}))
