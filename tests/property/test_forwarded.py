"""Whatever a client writes into `X-Forwarded-For`, the proxy's word on it stands."""

from ipaddress import IPv4Address, IPv6Address

from hypothesis import given
from hypothesis import strategies as st

from server.forwarded import find_client
from server.networks import Networks, parse_ip

Address = IPv4Address | IPv6Address

TRUSTED = Networks(["10.0.0.0/8", "2001:db8::/32"])
PROXIES = st.one_of(st.ip_addresses(network="10.0.0.0/8"), st.ip_addresses(network="2001:db8::/32"))
CLIENTS = st.ip_addresses().filter(lambda ip: str(ip) not in TRUSTED)


@given(st.binary(max_size=60), CLIENTS, st.lists(PROXIES, max_size=3))
def test_nobody_chooses_his_own_address(
    written: bytes, client: Address, proxies: list[Address]
) -> None:
    chain = b", ".join([written, *(str(one).encode() for one in (client, *proxies))])
    assert parse_ip(find_client("10.0.0.1", chain, TRUSTED)) == parse_ip(str(client))
