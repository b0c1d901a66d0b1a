"""An answer as an OpenAI stream, whatever its chunks look like: where it stands in the queue, then what is encoded."""

from starlette.responses import Response

from gateway.answer import Answer
from gateway.openai.mapping import answer_headers
from gateway.services import Services
from gateway.streaming import EventStream, StreamEncoder, queue_comment


def event_stream(services: Services, answer: Answer, encoder: StreamEncoder) -> Response:
    return EventStream(
        answer.events(),
        encoder,
        headers_now=lambda: answer_headers(answer),
        times=services.stream_times(),
        notice=lambda: queue_comment(answer.ticket.forecast()),
    )
