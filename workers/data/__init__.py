"""Data sets by reference: what is known of them, and their training and held-out tensors.

Pictures stay uint8 in memory; a batch becomes pixel/255 in [0, 1] when it is drawn. Nothing is
ever unpickled. What is decoded or fetched is kept in the cache folder and memory-mapped, so that
attempts on one machine share its pages.
"""

from workers.data.info import NO_DATA, Dataset, DatasetInfo, held_out_count, split
from workers.data.loading import built_in, built_in_names, catalogue, describe, load

__all__ = [
    "NO_DATA",
    "Dataset",
    "DatasetInfo",
    "built_in",
    "built_in_names",
    "catalogue",
    "describe",
    "held_out_count",
    "load",
    "split",
]
