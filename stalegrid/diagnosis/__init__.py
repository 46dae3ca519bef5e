"""What the theory says of a run, in numbers that are measured while it trains.

Does not know: engines, how a run is asked for and carried out.
"""

from stalegrid.diagnosis.diagnosis import Diagnosis
from stalegrid.diagnosis.fixed import Fixed, read_fixed
from stalegrid.diagnosis.show import table

__all__ = ["Diagnosis", "Fixed", "read_fixed", "table"]
