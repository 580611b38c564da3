"""The list of Cython extensions, nothing else."""

import os

from setuptools import Extension, setup

SOURCES = {
    "neo_common.wire._codec_c": "src/neo_common/wire/_codec_c.pyx",
    "neo_common.model._keys_c": "src/neo_common/model/_keys_c.pyx",
}

if os.environ.get("NEO_PURE_PYTHON") == "1":
    setup()
else:
    from Cython.Build import cythonize  # noqa: PLC0415  not needed for the pure build

    setup(
        ext_modules=cythonize(
            [Extension(name, [path]) for name, path in SOURCES.items()],
            build_dir="build",
            language_level=3,
        )
    )
