"""How messages are made smaller, and what of them arrives.

A codec is a pure function of the tensors that are sent, so all engines have the same bits.

Does not know: which messages there are, agents, engines.
"""

from stalegrid.codecs.choose import Chosen, chosen
from stalegrid.codecs.codec import Codec
from stalegrid.codecs.coding import Coding
from stalegrid.codecs.settings import CodecSettings

__all__ = ["Chosen", "Codec", "CodecSettings", "Coding", "chosen"]
