"""Fixtures that every test package shares."""

from collections.abc import Iterator

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """The product runs on asyncio alone, so its async tests do too."""
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def home_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test writes into the home of whoever runs it; what gateways keep is shared by the session."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("COE_HOME", str(tmp_path_factory.mktemp("home")))
        yield
