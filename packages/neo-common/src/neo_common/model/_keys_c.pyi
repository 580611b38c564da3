"""Types of the compiled packing; `_keys_py` says what it does."""

from neo_common.model.partition_table import TableUpdate

SOURCE: str
"""SHA-256 of the .pyx that it was built from."""
PARTITIONS_MAX: int
CELLS_MAX: int
RUN_GAIN: int

def encode_update(update: TableUpdate, /) -> bytes: ...
def decode_update(data: bytes, /) -> TableUpdate: ...
