"""/api/create, /api/copy, /api/delete and /api/pull: changing what is served.

What may be changed is decided in `gateway.library`; downloads are `gateway.downloads`.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from typing import Any

from fastapi import Request
from starlette.responses import Response

from gateway.downloads import DownloadDesk
from gateway.errors import JSONReply, error_table
from gateway.library import Library
from gateway.ollama.schemas import CopyBody, CreateBody, DeleteBody, PullBody
from gateway.ollama.service import ModelNotFound, StatusStream, find, read_body, require_management
from gateway.services import Services
from gateway.streaming import until_client_leaves
from modelfiles.errors import ModelfileError
from modelfiles.modelfile import ExampleTurn, Modelfile, parse
from modelfiles.parameters import RANGES, WITHOUT_EFFECT_HERE, ParameterError, Parameters, Value, parse_value
from specialists.errors import RequestRejected, UnknownSpecialist

Statuses = AsyncGenerator[Mapping[str, Any]]
SUCCESS = {"status": "success"}


@dataclass(frozen=True, slots=True)
class MakingEndpoints:
    services: Services
    library: Library
    downloads: DownloadDesk

    async def create(self, request: Request) -> Response:
        """Make a persona: a specialist with instructions and parameters of its own."""
        require_management(self.services)
        body = await read_body(request, CreateBody)
        return await self._reply(request, self._create(body), stream=body.stream)

    async def copy(self, request: Request) -> Response:
        """Give a model a second name."""
        require_management(self.services)
        body = await read_body(request, CopyBody)
        source = find(self.services, body.source)
        await self.library.copy(body.source if self.library.is_auto(body.source) else source.tag, body.destination)
        return Response(status_code=200)

    async def delete(self, request: Request) -> Response:
        """Forget a persona, or a pulled model with its weights."""
        require_management(self.services)
        body = await read_body(request, DeleteBody)
        manifest = find(self.services, body.model)
        sources = self.library.hub_sources(manifest.tag) if self.library.pulled(manifest.tag) else ()
        await self.library.delete(manifest.tag)
        weights = {each.engine.model_path for each in self.library.specialists.values()}
        if sources and manifest.engine.model_path not in weights:
            await self.services.pool.unload(manifest.engine)
            for source in sources:
                await self.downloads.discard(source)
        return Response(status_code=200)

    async def pull(self, request: Request) -> Response:
        """Fetch what a model lacks, or weights by their address on the hub, which are served from then on."""
        self.services.lifecycle.require_serving()
        require_management(self.services)
        body = await read_body(request, PullBody)
        return await self._reply(request, self._pull(body.model), stream=body.stream)

    async def _reply(self, request: Request, statuses: Statuses, *, stream: bool) -> Response:
        if stream:
            patience = self.services.settings.stalled_reader_seconds
            return StatusStream(statuses, error_table(request), stalled_reader_seconds=patience)

        async def exhaust() -> None:
            async with aclosing(statuses):
                async for _ in statuses:
                    pass

        await until_client_leaves(request.receive, exhaust())
        return JSONReply(SUCCESS)

    async def _create(self, body: CreateBody) -> Statuses:
        modelfile, notes = to_modelfile(body)
        notes += await self.library.create(body.model, modelfile)
        for note in ("reading model metadata", *notes, "writing manifest"):
            yield {"status": note}
        yield SUCCESS

    async def _pull(self, name: str) -> Statuses:
        try:
            sources = self.library.hub_sources(name)
        except UnknownSpecialist:
            raise ModelNotFound.named(name) from None
        for source in sources:
            async with aclosing(self.downloads.fetch(source)) as statuses:
                async for status in statuses:
                    yield {key: value for key, value in asdict(status).items() if value is not None}
        yield {"status": "writing manifest"}
        await self.library.settle_pull(name, sources)
        yield SUCCESS


def to_modelfile(body: CreateBody) -> tuple[Modelfile, list[str]]:
    """The Modelfile that the body spells out, and remarks on what it holds without effect. Raises RequestRejected."""
    try:
        if body.modelfile is None and body.base is None:
            raise RequestRejected("'from' is missing; name the specialist that the model is made of.", param="from")
        whole = parse(body.modelfile) if body.modelfile is not None else Modelfile(source=body.base or "")
        parameters, notes = _parameters(body.parameters, whole.parameters)
        turns = tuple(ExampleTurn(message.role, message.content) for message in body.messages)
        return replace(
            whole,
            source=body.base or whole.source,
            parameters=parameters,
            system=whole.system if body.system is None else body.system,
            template=whole.template if body.template is None else body.template,
            messages=turns or whole.messages,
            licenses=tuple(body.license) or whole.licenses,
        ), notes
    except (ModelfileError, ParameterError) as error:
        raise RequestRejected(f"Invalid Modelfile: {error}.", param="modelfile") from None


def _parameters(given: Mapping[str, Any], below: Parameters) -> tuple[Parameters, list[str]]:
    """`given` put over `below`; what Ollama knows and nothing here obeys is named in the remarks."""
    values: dict[str, Any] = {}
    notes = []
    for name, value in given.items():
        if name in WITHOUT_EFFECT_HERE:
            notes.append(f"note: {name} has no effect here")
        elif value is not None:
            values[name] = _stops(value) if name == "stop" else _value(name, value)
    return replace(below, **values), notes


def _value(name: str, value: object) -> Value:
    if not isinstance(value, bool | int | float | str):
        raise ParameterError(f"{name[:60]}: a number, a text or a truth value is expected")
    if isinstance(value, float) and value.is_integer() and name in RANGES and RANGES[name].kind is int:
        value = int(value)
    return parse_value(name, str(value).lower() if isinstance(value, bool) else str(value))


def _stops(value: object) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise ParameterError("stop: a text or a list of texts is expected")
    return tuple(stops)
