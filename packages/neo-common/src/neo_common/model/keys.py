"""Partition tables as bytes: the packing in use, Cython's, or the reference if NEO_PURE_PYTHON=1.

A missing or stale extension is an error that names the command which mends it, never a silent slow path. The format
is described in `_keys_py`.
"""

from typing import TYPE_CHECKING

from neo_common.extension import PURE, Extension

if TYPE_CHECKING or PURE:
    from neo_common.model._keys_py import decode_update, encode_update
else:
    with Extension("neo_common.model._keys_c"):
        from neo_common.model._keys_c import decode_update, encode_update

__all__ = ["decode_update", "encode_update"]
