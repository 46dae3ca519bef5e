"""Which interface leads where is found out without a name that somebody may have set otherwise."""

import os
import socket

import pytest

from stalegrid.engines.distributed.interfaces import interfaces, loopback, named, resolved, towards
from stalegrid.errors import ConfigError


def test_all_interfaces_that_are_up_are_listed_with_their_addresses() -> None:
    found = interfaces()
    assert {one.name for one in found} <= set(os.listdir("/sys/class/net"))
    assert ("127.0.0.1", True) in {(one.address, one.loops) for one in found}
    for one in found:
        socket.inet_pton(socket.AF_INET6 if ":" in one.address else socket.AF_INET, one.address)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.1.1", "localhost"])
def test_loopback_leads_to_this_host(address: str) -> None:
    assert towards(address).name == loopback()


def test_an_address_of_this_host_and_one_elsewhere_are_reached_from_an_interface_of_it() -> None:
    own = [one for one in interfaces() if not one.loops and "." in one.address]
    if not own:
        pytest.skip("this host has no interface but loopback")
    assert towards(own[0].address) == named(own[0].name)


def test_a_name_that_leads_nowhere_is_an_error_of_the_system() -> None:
    with pytest.raises(OSError, match=r"Name or service not known|No address|Temporary failure"):
        resolved("nowhere.invalid")


def test_an_interface_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    assert named(f"{loopback()},{loopback()}").loops
    with pytest.raises(ConfigError, match=r"GLOO_SOCKET_IFNAME: lo,wg9\); there are: .*127\.0\.0\.1"):
        named(f"{loopback()},wg9" if loopback() == "lo" else "lo,wg9")
