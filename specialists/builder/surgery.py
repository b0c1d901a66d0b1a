"""From a parent GGUF and an expert mask to a specialist's GGUF and the files that go with it.

`prepare` decides everything from the parent's header and the mask; `perform` writes. Peak memory is that of the
metadata, whatever the size of the model.
"""

import hashlib
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from specialists.builder.companions import Companions, companions
from specialists.builder.errors import BuilderError
from specialists.builder.plan_writer import write_plan
from specialists.builder.record import BuildRecord, Experts, MaskRecord, ModelRecord
from specialists.builder.soundness import refuse_unsound
from specialists.builder.staging import staged
from specialists.expert_mask import ExpertMask, Ids, read_mask
from specialists.expert_slicing import plan_slice, plan_zero
from specialists.gguf_file import GgufHeader, read_header
from specialists.gguf_fingerprint import fingerprint
from specialists.gguf_plan import GgufPlan
from specialists.moe_layout import MoeLayout, layout


class Mode(StrEnum):
    """`slice` leaves dropped experts out; `zero` keeps every shape and zeroes their weights (see docs/builder.md)."""

    SLICE = "slice"
    ZERO = "zero"


@dataclass(frozen=True, slots=True, kw_only=True)
class Surgery:
    """What is going to be done: `parent` cut by `mask` into `plan`, written to `out`."""

    parent: MoeLayout
    parent_fingerprint: str
    mask: ExpertMask
    mask_record: MaskRecord
    mode: Mode
    plan: GgufPlan
    out: Path

    @property
    def experts(self) -> Experts:
        whole = self.parent.num_experts
        used = self.parent.used_of(self.mask.num_kept) if self.mode is Mode.SLICE else self.parent.num_used
        return Experts(
            in_parent=whole,
            kept=min(self.mask.budgets.values()),
            in_model=self.mask.num_kept if self.mode is Mode.SLICE else whole,
            used=max(used) if isinstance(used, tuple) else used,
            layers=len(self.parent.layers),
        )


def prepare(parent: Path, mask: Path, out: Path, *, mode: Mode, ids: Ids | None = None) -> Surgery:
    """Read and check both inputs, and plan the output; nothing is written.

    Raises GgufError, MoeError or MaskError for inputs that are wrong or do not fit each other, UnsoundWeights for a
    parent with broken norms, BuilderError for an `out` that cannot be.
    """
    header = read_header(parent)
    found = layout(header)
    _check_out(out, header)
    read = read_mask(mask, num_experts=found.num_experts, ids=ids)
    identity = fingerprint(header)
    read.check_fits(num_experts=found.num_experts, layers=found.blocks, parent=identity)
    refuse_unsound(header)
    plan = (plan_slice if mode is Mode.SLICE else plan_zero)(found, read.kept)
    _check_room(out, plan.num_bytes)
    return Surgery(
        parent=found,
        parent_fingerprint=identity,
        mask=read,
        mask_record=_mask_record(mask, read),
        mode=mode,
        plan=plan,
        out=out,
    )


def _check_out(out: Path, parent: GgufHeader) -> None:
    if out.suffix != ".gguf":
        raise BuilderError(f"--out: {out.name!r} must end in .gguf")
    if not out.parent.is_dir():
        raise BuilderError(f"--out: there is no folder {out.parent}; make it first")
    if out.is_dir() or (out.exists() and any(out.samefile(part.path) for part in parent.parts)):
        raise BuilderError(f"--out: {out} is {'a folder' if out.is_dir() else 'the parent itself'}; name another file")


def _check_room(out: Path, needed_bytes: int) -> None:
    """Said before half of it is written; a disk that fills up meanwhile is an error of its own."""
    free_bytes = shutil.disk_usage(out.parent).free
    if needed_bytes > free_bytes:
        raise BuilderError(
            f"--out: {needed_bytes / 1e9:.2f} GB are needed in {out.parent} and {free_bytes / 1e9:.2f} GB are free; "
            "make room, or name another folder"
        )


def _mask_record(path: Path, mask: ExpertMask) -> MaskRecord:
    return MaskRecord(
        name=path.name,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        digest=mask.digest,
        domain=mask.domain,
        num_swaps=len(mask.swaps),
        metrics=dict(mask.metrics),
    )


def perform(
    surgery: Surgery, *, tag: str, written_at: str, on_bytes: Callable[[int], None] = lambda _count: None
) -> BuildRecord:
    """Write the specialist and its companions; all of them appear, or none.

    `on_bytes` hears of each piece that was written, in bytes, of `surgery.plan.num_bytes` in all. Raises GgufError
    when the parent changes meanwhile, UnsoundWeights when what was written has broken norms, OSError for the disk.
    """
    started = time.monotonic()
    files = Companions.beside(surgery.out)
    with staged([surgery.out, *files.paths]) as temporary:
        sha256 = write_plan(surgery.plan, temporary[surgery.out], on_bytes)
        written = read_header(temporary[surgery.out])
        refuse_unsound(written)
        record = BuildRecord(
            tag=tag,
            domains=(surgery.mask.domain,) if surgery.mask.domain else (),
            mode=surgery.mode.value,
            architecture=written.architecture,
            experts=surgery.experts,
            parent=_model_record(surgery.parent.header, surgery.parent_fingerprint),
            mask=surgery.mask_record,
            model=ModelRecord(
                name=surgery.out.name,
                num_bytes=written.file_bytes,
                tensor_bytes=written.tensor_bytes,
                fingerprint=fingerprint(written),
                sha256=sha256,
            ),
            seconds=round(time.monotonic() - started, 3),
            written_at=written_at,
        )
        for path, text in companions(record, surgery.parent.header, written, files).items():
            temporary[path].write_text(text, encoding="utf-8")
    return record


def _model_record(header: GgufHeader, identity: str) -> ModelRecord:
    return ModelRecord(
        name=header.path.name,
        num_bytes=sum(part.file_bytes for part in header.parts),
        tensor_bytes=header.tensor_bytes,
        fingerprint=identity,
    )
