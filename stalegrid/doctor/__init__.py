"""Whether the hosts of a run are fit for it, and what to change where they are not.

Does not know: how runs train, how hosts tell each other what they are.
"""

from stalegrid.doctor.examining import Examined, examine
from stalegrid.doctor.showing import table, words

__all__ = ["Examined", "examine", "table", "words"]
