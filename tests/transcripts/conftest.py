"""`pytest tests/transcripts --regenerate` writes the expected traces anew; read the difference before you keep it."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption("--regenerate", action="store_true", help="write the transcripts instead of comparing them")
