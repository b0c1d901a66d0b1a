"""A gateway with every route there can be, over scripted engines, and what it publishes about itself."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from gateway.routing import SupervisorChooser
from gateway.services import Services
from gateway.supervision import build_supervisor
from specialists.catalogue import Catalogue
from supervisor.transfer_fit import TransferTable
from supervisor.transfer_model import TransferModel
from tests.gateway.college import GENERAL, MATH, client_of
from tests.gateway.ollama.house import catalogue, library, services


def everything(folder: Path) -> Services:
    """Two specialists that can be served, the shipped classifier, a library and a hub that holds nothing."""
    whole = catalogue()
    served = {tag: whole.specialists[tag] for tag in (GENERAL, MATH)}
    college = Catalogue(name="testing", default=GENERAL, specialists=served, sources=whole.sources)
    made = services(folder, shelf=library(folder, college=college))
    chooser = SupervisorChooser(
        supervisor=build_supervisor(made.settings, default=GENERAL, transfer=TransferModel(TransferTable.load())),
        specialists=served,
        resident=lambda: [each.engine for each in served.values()],
        load_seconds=lambda spec: 0.0,
    )
    return replace(made, supervisor=chooser)


def document_of(app: FastAPI) -> dict[str, Any]:
    async def read() -> dict[str, Any]:
        async with client_of(app) as client:
            document: dict[str, Any] = (await client.get("/openapi.json")).json()
            return document

    return asyncio.run(read())
