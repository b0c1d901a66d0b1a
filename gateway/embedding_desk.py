"""Who makes embeddings under a name: the supervisor's encoder in this process, or a model in an engine of its own.

An engine is leased as for an answer, so that it is loaded when it is asked for, counts against the budget, leaves when
nobody asks any more, and is started again after a crash. Knows no dialect.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.answer import LeasingPool
from gateway.chat import SpecialistDirectory
from gateway.embeddings import ENCODER_TAG, Embedded, EmbeddingService, require_bounds, shortened
from specialists.engine.protocol import TextVector
from specialists.errors import RequestRejected, SpecialistUnavailable, WorkerLost
from specialists.manifest import SpecialistManifest


@dataclass(frozen=True, slots=True)
class EmbeddingDesk:
    """`own` is the supervisor's encoder; it also bounds how many requests wait for any."""

    own: EmbeddingService
    catalogue: SpecialistDirectory
    pool: LeasingPool

    def find(self, model: str) -> SpecialistManifest | None:
        """Who is meant; None for the supervisor's encoder.

        Raises UnknownSpecialist, or RequestRejected for whoever answers and makes no embeddings.
        """
        if self.own.serves(model):
            return None
        is_auto = self.catalogue.is_auto(model)
        found = None if is_auto else self.catalogue.resolve(model)
        if found is None or not found.makes_embeddings:
            name = model if found is None else found.tag
            raise RequestRejected(f"'{name}' makes no embeddings; ask {' or '.join(self._tags())}.", param="model")
        return found

    async def embed(
        self,
        model: SpecialistManifest | None,
        texts: Sequence[str],
        *,
        dimensions: int | None = None,
        may_truncate: bool = True,
    ) -> Embedded:
        """Embed each text on its own; `model` is what `find` found.

        Raises RequestRejected, QueueFull, SpecialistUnavailable, and what an engine fails with. `dimensions` keeps that
        many leading components and makes them a unit vector again.
        """
        if model is None:
            return await self.own.embed(texts, dimensions=dimensions, may_truncate=may_truncate)
        require_bounds(texts, dimensions, width=model.vector_width)
        if not texts:
            return Embedded((), 0, ())
        with self.own.place_in_queue():
            found, load_seconds = await self._by_engine(model, texts, may_truncate)
        return Embedded(
            tuple(shortened(each.vector, dimensions) for each in found),
            sum(each.num_tokens for each in found),
            tuple(index for index, each in enumerate(found) if each.is_truncated),
            load_seconds,
        )

    async def _by_engine(
        self, model: SpecialistManifest, texts: Sequence[str], may_truncate: bool
    ) -> tuple[list[TextVector], float]:
        """The vectors, and the seconds that loading took. An engine that dies costs one more attempt."""
        if model.unavailable is not None:
            raise SpecialistUnavailable(f"Encoder '{model.tag}' cannot be served: {model.unavailable}")
        has_failed = False
        while True:
            try:
                async with self.pool.acquire(model) as lease:
                    return await lease.engine.embed(texts, may_truncate=may_truncate), lease.swap_seconds
            except WorkerLost:
                if has_failed:
                    raise
                has_failed = True

    def _tags(self) -> list[str]:
        models = self.catalogue.specialists.values()
        return [ENCODER_TAG, *(each.tag for each in models if each.makes_embeddings)]
