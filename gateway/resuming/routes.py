"""`/coe/streams/{id}`: read on where a connection broke, or end what nobody wants any more."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.errors import JSONReply
from gateway.resuming.desk import StreamDesk
from gateway.resuming.following import followed, number_after
from gateway.services import Services


def stream_routes(services: Services, streams: StreamDesk) -> APIRouter:
    """The routes, for the streams at this desk."""
    routes = APIRouter(prefix="/coe")

    @routes.get("/streams/{id}")
    async def read(request: Request, id: str) -> Response:
        """What a resumable stream says after a number, and goes on to say."""
        stream = streams.find(id)
        if last := request.headers.get("last-event-id"):  # a browser that reconnects sends it to the same address
            after = number_after(stream, last, param="Last-Event-ID")
        else:
            after = number_after(stream, request.query_params.get("after"), param="after")
        return followed(request, services, stream, after=after)

    @routes.delete("/streams/{id}")
    async def delete(id: str) -> Response:
        """Cancel a resumable stream and forget it."""
        stream = streams.find(id)
        await stream.end()
        streams.forget(stream)
        return JSONReply({"id": id, "object": "stream", "deleted": True})

    return routes
