from stalegrid.engines.distributed.greeting import Greeting
from stalegrid.engines.distributed.hosts import Hosts


def greeting(host: str, address: str) -> Greeting:
    return Greeting(host, "eth0", address, "1", "3", "2", "1", "", "")


def test_every_process_has_a_place_among_hosts_in_the_order_of_their_first_ones() -> None:
    said = [greeting(*of) for of in (("b", "10.0.0.2"), ("a", "10.0.0.1"), ("b", "10.0.0.2"), ("a", "10.0.0.3"))]
    found = Hosts.of(said)
    assert found == Hosts([0, 1, 3], [2, 1, 1], ["b", "a 10.0.0.1", "a 10.0.0.3"], [0, 1, 0, 2])
