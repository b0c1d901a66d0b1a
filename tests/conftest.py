"""Fixtures that every test package shares."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """The product runs on asyncio alone, so its async tests do too."""
    return "asyncio"
