"""A gateway process with a scripted engine, for tests of signals and ports: `python -m tests.gateway.serve_fake`.

Each answer says "begun" and waits for ever if its client asked for `model: coe-math:q4`, and is complete otherwise.
"""

import asyncio
import sys

from gateway.observability import Metrics
from gateway.server import run
from gateway.services import Services
from gateway.settings import Settings
from specialists.request import ChatPrompt, GenerationRequest
from tests.fakes import Script
from tests.gateway.college import MATH, FakeCatalogue, FakePool


def build(settings: Settings) -> Services:
    def script(request: GenerationRequest) -> Script:
        assert isinstance(request.prompt, ChatPrompt)
        waits = MATH in request.prompt.messages[0].content
        return Script(pieces=("begun", " ended"), gates={1: asyncio.Event()} if waits else {})

    catalogue = FakeCatalogue()
    return Services(
        settings=settings, catalogue=catalogue, pool=FakePool(script), metrics=Metrics(catalogue.specialists)
    )


if __name__ == "__main__":
    sys.exit(run(Settings(), build))
