"""Networks: how they are written, and which addresses lie in them."""

import pytest

from server.networks import Networks, parse_network


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.1.2.3/32", "10.1.2.3"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("::1", "::1"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("unix", "unix"),
    ],
)
def test_a_network_is_written_in_its_usual_way(text: str, network: str) -> None:
    assert parse_network(text) == network


@pytest.mark.parametrize("text", ["", "10.0.0.1/8", "10.0.0", "proxy.example", "10.0.0.0/33", "*"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_network(text)


@pytest.mark.parametrize(
    ("address", "is_inside"),
    [
        ("10.255.0.1", True),
        ("11.0.0.1", False),
        ("::ffff:10.0.0.1", True),
        ("2001:db8:1::1", True),
        ("2001:db9::1", False),
        ("192.0.2.7", True),
        ("192.0.2.70", False),
        ("unix", False),
        ("fe80::1%eth0", False),
        ("nonsense", False),
    ],
)
def test_an_address_lies_in_a_network_by_its_number(address: str, is_inside: bool) -> None:
    networks = Networks(["10.0.0.0/8", "2001:db8::/32", "192.0.2.7"])
    assert (address in networks) is is_inside


def test_the_unix_socket_is_there_where_it_is_named() -> None:
    assert "unix" in Networks(["unix"])
