"""Processes prove to each other that they know the secret of their run, before anything else is taken from them.

Does not know: where the secret comes from, what is told afterwards.

Each draws a number that is used once, and returns a keyed hash of its rank and of the numbers of all.  So no process
tells the secret, and no answer can be used again, or by another rank.
"""

import hashlib
import hmac
import secrets

import torch.distributed as dist

from stalegrid.engines.distributed import talk
from stalegrid.errors import EngineError

_NONCE = 32  # bytes


def prove(secret: bytes, patience: float) -> None:
    """Let every process prove to all others that it knows the secret.

    Args:
        secret: of the run.
        patience: seconds that a process may be silent.

    Raises:
        EngineError: some did not.
    """
    drawn = b"".join(talk.gather(lambda: secrets.token_bytes(_NONCE), patience, _NONCE))
    answers = talk.gather(lambda: _answer(secret, dist.get_rank(), drawn), patience, hashlib.sha256().digest_size)
    wrong = [
        rank for rank, answer in enumerate(answers) if not hmac.compare_digest(answer, _answer(secret, rank, drawn))
    ]
    if wrong:
        raise EngineError(
            f"processes do not know the secret of this run (processes: {wrong}, asked by: {dist.get_rank()}): either "
            "they are not of this run, or they were given another one; give all of them the same STALEGRID_SECRET"
        )


def _answer(secret: bytes, rank: int, drawn: bytes) -> bytes:
    return hmac.digest(secret, f"stalegrid {rank} of {dist.get_world_size()}\n".encode() + drawn, "sha256")
