"""A model cut into K stage modules, balanced by measured cost or where the user says.

Does not know: groups, methods, engines.
"""

from stalegrid.partition.asking import Otherwise
from stalegrid.partition.balancing import balance, divide
from stalegrid.partition.blocks import paths_of
from stalegrid.partition.cutting import Partition, finest, partition
from stalegrid.partition.elsewhere import check_on
from stalegrid.partition.operations import Made, Operations
from stalegrid.partition.shaped import unforeseen
from stalegrid.partition.sharding import Shard, shard_of, split

__all__ = [
    "Made",
    "Operations",
    "Otherwise",
    "Partition",
    "Shard",
    "balance",
    "check_on",
    "divide",
    "finest",
    "partition",
    "paths_of",
    "shard_of",
    "split",
    "unforeseen",
]
