"""One shipped classifier for all tests that only read it."""

import pytest

from supervisor.classifier import SupervisorClassifier


@pytest.fixture(scope="session")
def shipped() -> SupervisorClassifier:
    return SupervisorClassifier.load()
