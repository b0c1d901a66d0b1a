"""An answer as an OpenAI stream, whatever its chunks look like: where it stands in the queue, then what is encoded.

With the header X-Resumable it is recorded and read from there, so that whoever loses the connection can read on.
"""

from fastapi import Request
from starlette.responses import Response

from gateway.answer import Answer
from gateway.events import AnswerEvent
from gateway.openai.coe_object import answer_headers
from gateway.resuming.desk import StreamDesk
from gateway.resuming.following import followed, grace_wanted
from gateway.resuming.recorded import StreamSource
from gateway.services import Services
from gateway.streaming import EventStream, StreamEncoder, queue_comment


def event_stream(
    request: Request,
    services: Services,
    streams: StreamDesk,
    answer: Answer,
    encoder: StreamEncoder[AnswerEvent],
    *,
    id: str,
) -> Response:
    """The answer, which the client knows by this id. Raises RequestRejected and TooManyStreams."""
    grace_seconds = grace_wanted(request)
    source = stream_source(answer, encoder)
    if grace_seconds is None:
        return EventStream(
            source.events,
            encoder,
            headers_now=source.headers,
            times=services.stream_times(),
            notice=source.notice,
        )
    return followed(request, services, streams.begin(source, id=id, grace_seconds=grace_seconds))


def stream_source(answer: Answer, encoder: StreamEncoder[AnswerEvent]) -> StreamSource:
    return StreamSource(
        events=answer.events(),
        encoder=encoder,
        headers=lambda: answer_headers(answer),
        notice=lambda: queue_comment(answer.ticket.forecast()),
    )
