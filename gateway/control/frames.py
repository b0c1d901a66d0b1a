"""Frames from outside: whose experts lie in their slots, and whether those slots hold what they should.

The pool knows who is served; which experts that means is read here from the family's masks or digests, once for each
family and off the event loop.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.control.schemas import CheckBody
from gateway.errors import JSONReply
from gateway.limits import parse_json
from gateway.services import Services
from gateway.streaming import until_client_leaves
from specialists.engine.protocol import EngineSpec
from specialists.expert_mask import MaskError
from specialists.expert_slots import plan_morph
from specialists.family import Family, read_masked_family, read_standalone_family
from specialists.gguf_cursor import GgufError
from specialists.pool.status import EngineReport
from specialists.tensor_digests import DigestError


def read_family(spec: EngineSpec) -> Family | None:
    """The family of an engine; None when one of its files has gone or changed since."""
    masks = {member.name: member.mask_path for member in spec.family if member.mask_path is not None}
    files: dict[str, Path] = {member.name: member.model_path for member in spec.family if member.model_path is not None}
    try:
        return read_masked_family(spec.model_path, masks) if masks else read_standalone_family(files)
    except (GgufError, MaskError, DigestError, OSError):
        return None


class SlotTables:
    """What becoming each of a family's specialists would write, worked out once for each family."""

    def __init__(self, read: Callable[[EngineSpec], Family | None] = read_family) -> None:
        self._read = read
        self._families: dict[EngineSpec, Family | None] = {}

    async def of(self, engine: EngineReport) -> dict[str, Any]:
        """A frame's slots by specialist: how many hold an expert of its own in its place, and what a morph would move.

        Without the slots when the family's files cannot be read any more.
        """
        spec = engine.spec
        if spec not in self._families:
            self._families[spec] = await asyncio.to_thread(self._read, spec)
        family = self._families[spec]
        said: dict[str, Any] = {"weights": spec.model_path.name, "replica": spec.replica, "serving": engine.serving}
        if family is None or engine.serving not in family.members:
            return said
        return said | slots_by_specialist(family, engine.serving)


def slots_by_specialist(family: Family, serving: str) -> dict[str, Any]:
    """Of a frame that serves `serving`; the slots of all layers together, and bytes. Pure."""
    held = family.members[serving]
    num_slots = sum(map(len, held.values()))
    plans = {name: plan_morph(held, slots) for name, slots in family.members.items()}
    return {
        "slots": num_slots,
        "slots_in_place": {name: num_slots - len(plan.writes) for name, plan in plans.items()},
        "morph_bytes": {name: plan.num_bytes(family.bytes_per_expert) for name, plan in plans.items()},
    }


def frame_routes(services: Services) -> APIRouter:
    """The routes under /coe/frames that need the key, if there is one."""
    routes = APIRouter(prefix="/coe/frames")

    @routes.post("/check")
    async def check(request: Request) -> Response:
        """Compare a random sample of every loaded frame's slots with the files that they came from."""
        services.lifecycle.require_serving()
        data = await request.body()
        body = CheckBody.model_validate(parse_json(data) if data else {})
        checking = services.pool.check_frames(num_slots=body.slots, seed=body.seed)
        reports = await until_client_leaves(request.receive, checking)
        frames = [
            {"weights": spec.model_path.name, "replica": spec.replica, "sound": report.is_sound}
            | msgspec.to_builtins(report)
            for spec, report in reports.items()
        ]
        return JSONReply({"sound": all(frame["sound"] for frame in frames), "frames": frames})

    return routes
