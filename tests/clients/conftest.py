"""One starter college for all client scripts, with a home of its own."""

from collections.abc import Iterator

import pytest

from tests.end_to_end.conftest import REPOSITORY, serve


@pytest.fixture(scope="session")
def starter_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("clients")
    with serve(REPOSITORY / "college.toml", folder, home=str(folder / "home")) as gateway:
        yield gateway.url
