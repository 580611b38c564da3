"""The list of Cython extensions, nothing else."""

import hashlib
import os
from pathlib import Path

from setuptools import Extension, setup

SOURCES = {
    "neo_common.wire._codec_c": "src/neo_common/wire/_codec_c.pyx",
    "neo_common.model._keys_c": "src/neo_common/model/_keys_c.pyx",
}


def extension(name: str, path: str) -> Extension:
    """Return the extension, which will know what it was built from (`neo_common.extension` compares)."""
    source = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return Extension(name, [path], define_macros=[("NEO_SOURCE", f'"{source}"')])


if os.environ.get("NEO_PURE_PYTHON") == "1":
    setup()
else:
    from Cython.Build import cythonize  # not needed for the pure build

    # `force`: dates cannot be trusted after a checkout; two small files take seconds.
    setup(
        ext_modules=cythonize(
            [extension(name, path) for name, path in SOURCES.items()], build_dir="build", language_level=3, force=True
        )
    )
