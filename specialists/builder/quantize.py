"""A smaller file of the same model, by llama.cpp's quantiser, with an importance matrix where there is one.

The quantiser runs in a child process; its output appears by renaming once its norms have been checked.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from specialists.builder.errors import BuilderError, QuantizeFailed
from specialists.builder.imatrix import Importance, check_fits, cut_imatrix, read_imatrix
from specialists.builder.inspection import tensor_groups
from specialists.builder.record import ModelRecord
from specialists.builder.report import Figure, Report
from specialists.builder.soundness import refuse_unsound
from specialists.builder.staging import staged
from specialists.expert_mask import read_mask
from specialists.gguf_file import GgufHeader, read_header
from specialists.gguf_fingerprint import fingerprint
from specialists.moe_layout import layout

TYPES: Final = (
    *("F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0"),
    *("Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K", "Q2_K_S", "IQ4_NL", "IQ4_XS", "IQ3_M", "IQ3_S", "IQ3_XS", "IQ3_XXS"),
    *("IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S", "MXFP4_MOE"),
)
_HINTS: Final = {
    "requantizing from type": "it is packed already, add --requantize to accept the further loss",
    "requires an imatrix": "name an importance matrix with --imatrix, or take a larger type",
}
_WORKER: Final = (sys.executable, "-m", "specialists.builder.quantize_worker")

OnTensor = Callable[[int, int, str], None]
"""(tensors done, tensors in all, name of the one being packed)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeJob:
    """What is asked. `imatrix` is the model's own, or its parent's together with `parent` and `mask`."""

    source: Path
    out: Path
    type: str = "Q4_K_M"
    imatrix: Path | None = None
    parent: Path | None = None
    mask: Path | None = None
    threads: int
    may_requantize: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeRecord:
    """What came out. `imatrix` is the SHA-256 of the matrix's file."""

    format: str = "coe-quantize/1"
    type: str
    source: ModelRecord
    model: ModelRecord
    imatrix: str | None


def quantize(job: QuantizeJob, *, on_tensor: OnTensor = lambda _done, _total, _name: None) -> QuantizeRecord:
    """Write `job.out` and a report beside it. Raises BuilderError, GgufError or MaskError for what was asked,
    QuantizeFailed with llama.cpp's own words, UnsoundWeights for what came out, OSError for the disk.
    """
    _check(job)
    source = read_header(job.source)
    importance = _importance(job, source)
    html, json_path = (job.out.with_suffix(f".quantize.report.{kind}") for kind in ("html", "json"))
    with staged([job.out, html, json_path]) as temporary, _saved(importance) as saved:
        _run(job, temporary[job.out], saved, on_tensor)
        written = read_header(temporary[job.out])
        refuse_unsound(written)
        record = QuantizeRecord(
            type=job.type,
            source=_model_record(source, job.source.name),
            model=_model_record(written, job.out.name),
            imatrix=None if job.imatrix is None else hashlib.sha256(job.imatrix.read_bytes()).hexdigest(),
        )
        report = _report(record, source, written)
        temporary[html].write_text(report.to_html(), encoding="utf-8")
        temporary[json_path].write_text(report.to_json(), encoding="utf-8")
    return record


def _check(job: QuantizeJob) -> None:
    if job.type not in TYPES:
        raise BuilderError(f"--type: {job.type[:40]!r} is not among {', '.join(TYPES)}")
    if job.out.suffix != ".gguf" or not job.out.parent.is_dir():
        raise BuilderError(f"--out: {job.out} must end in .gguf and lie in a folder that is there")
    if job.out.exists() and job.source.exists() and job.out.samefile(job.source):
        raise BuilderError("--out: names the model itself; name another file")
    if (job.parent is None) != (job.mask is None):
        raise BuilderError("--parent and --mask: belong together, to cut the parent's importance matrix; give both")
    if job.mask is not None and job.imatrix is None:
        raise BuilderError("--imatrix: is what --parent and --mask cut; name the parent's matrix")


def _importance(job: QuantizeJob, source: GgufHeader) -> Importance | None:
    if job.imatrix is None:
        return None
    importance = read_imatrix(job.imatrix)
    if job.parent is not None and job.mask is not None:
        parent = layout(read_header(job.parent))
        importance = cut_imatrix(importance, parent, read_mask(job.mask, num_experts=parent.num_experts).kept)
    check_fits(importance, source)
    return importance


@contextmanager
def _saved(importance: Importance | None) -> Iterator[Path | None]:
    """The matrix as a file for the child process."""
    if importance is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "importance.npz"
        np.savez(path, **dict(importance))  # type: ignore[arg-type]  # its stub knows allow_pickle alone
        yield path


def _run(job: QuantizeJob, out: Path, importance: Path | None, on_tensor: OnTensor) -> None:
    said = {
        "source": str(job.source.absolute()),
        "out": str(out.absolute()),
        "type": job.type,
        "threads": job.threads,
        "may_requantize": job.may_requantize,
        "importance": None if importance is None else str(importance),
    }
    with subprocess.Popen(_WORKER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:  # noqa: S603
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(json.dumps(said) + "\n")
            child.stdin.close()
            last = ""
            for line in child.stdout:
                last = _heard(line, on_tensor) or last
        except BaseException:
            child.kill()
            raise
    if child.returncode != 0:
        raise QuantizeFailed(_explained(job, child.returncode, last))


def _heard(line: str, on_tensor: OnTensor) -> str:
    """Pass progress on; anything else that was said is returned."""
    message: dict[str, Any] = json.loads(line)
    if "done" in message:
        on_tensor(message["done"], message["total"], message["tensor"])
        return ""
    return str(message["said"])


def _explained(job: QuantizeJob, code: int, said: str) -> str:
    crashed = f"llama.cpp ended with signal {-code}" if code < 0 else "llama.cpp refused"
    hint = next((f"; {hint}" for words, hint in _HINTS.items() if words in said), "")
    return f"{job.source.name}: {crashed}: {said or 'it gave no reason'}{hint}"


def _model_record(header: GgufHeader, name: str) -> ModelRecord:
    num_bytes = sum(part.file_bytes for part in header.parts)
    return ModelRecord(
        name=name, num_bytes=num_bytes, tensor_bytes=header.tensor_bytes, fingerprint=fingerprint(header)
    )


def _report(record: QuantizeRecord, source: GgufHeader, written: GgufHeader) -> Report:
    inputs = {f"model {record.source.name}": record.source.fingerprint}
    if record.imatrix is not None:
        inputs["importance matrix"] = f"sha256:{record.imatrix}"
    report = Report(f"Quantise: {record.model.name}", record.type, inputs)
    exact = "counted in the file, exact"
    report.add_figures(
        [
            Figure(name="before", value=record.source.num_bytes / 1e9, unit="GB", over=exact),
            Figure(name="after", value=record.model.num_bytes / 1e9, unit="GB", over=exact),
        ]
    )
    before = {group.name: group for group in tensor_groups(source)}
    rows = [
        (
            each.name,
            ", ".join(before[each.name].types),
            before[each.name].num_bytes,
            ", ".join(each.types),
            each.num_bytes,
        )
        for each in tensor_groups(written)
        if each.name in before
    ]
    report.add_table("By kind of tensor", ("kind", "types before", "bytes before", "types after", "bytes after"), rows)
    return report
