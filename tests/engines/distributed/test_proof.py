"""Who does not know the secret is refused, by all, in one clear error."""

from pathlib import Path

from stalegrid.engines.distributed.proof import prove
from tests.engines.distributed.forked import together


def test_a_process_that_does_not_know_the_secret_is_refused_and_named(tmp_path: Path) -> None:
    def act(rank: int) -> str:
        prove(b"a secret of this run" if rank != 1 else b"a guess", 10.0)
        return "proved"

    first, guesser, third = together(tmp_path, 3, act)
    for said in (first, third):
        assert said.startswith("EngineError: processes do not know the secret of this run (processes: [1]")
    assert "processes: [0, 2]" in guesser


def test_processes_that_know_the_secret_prove_it(tmp_path: Path) -> None:
    def act(rank: int) -> str:
        prove(b"a secret of this run", 10.0)
        return "proved"

    assert together(tmp_path, 3, act) == ["proved"] * 3
