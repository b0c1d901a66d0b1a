"""The evaluation report as one HTML page with inline SVG: nothing to fetch, nothing to run."""

from collections.abc import Sequence
from html import escape

from supervisor.evaluation import Report

SIZE = 320
EDGE = 40

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Supervisor: {title}</title><style>
body{{font:15px/1.5 system-ui,sans-serif;max-width:1060px;margin:2rem auto;padding:0 1rem;color:#1b1f24}}
table{{border-collapse:collapse;margin:.5rem 0}}
td,th{{padding:.15rem .6rem;text-align:right;border-bottom:1px solid #ddd}}
td:first-child,th:first-child{{text-align:left}}
figure{{display:inline-block;margin:.5rem 1rem .5rem 0;vertical-align:top}}
figcaption{{max-width:{size}px;color:#555}}svg text{{font-size:11px;fill:#444}}
</style></head><body><h1>Supervisor: {title}</h1><p>Model {version}, {num} examples.</p>
{body}</body></html>
"""


def to_html(report: Report, title: str) -> str:
    """A whole page."""
    body = "\n".join((_summary(report), _reliability(report), _coverage(report), _flips(report), _confusion(report)))
    return _PAGE.format(title=escape(title), version=escape(report.model_version), num=report.num, body=body, size=SIZE)


def _summary(report: Report) -> str:
    general = "no such example" if report.general_kept is None else _percent(report.general_kept)
    rows = (
        ("accuracy, any acceptable domain", f"{_percent(report.accuracy)}"),
        ("95 % interval", f"{_percent(report.accuracy_low)} to {_percent(report.accuracy_high)}"),
        ("accuracy before abstention", _percent(report.top_accuracy)),
        ("right domain among the first two", _percent(report.top2_accuracy)),
        ("macro-F1", f"{report.macro_f1:.3f}"),
        ("calibration error (15 bins)", f"{report.calibration_error:.3f}"),
        ("answered by a wrong specialist", _percent(report.wrong_specialist)),
        ("specialist work lost to general", _percent(report.lost_work)),
        ("abstained", _percent(report.abstained)),
        ("small talk kept by general", general),
        ("conformal set holds the right domain", _percent(report.conformal_coverage)),
        ("mean size of the conformal set", f"{report.conformal_size:.2f} domains"),
        ("time per text", f"p50 {report.milliseconds_p50:.1f} ms, p95 {report.milliseconds_p95:.1f} ms"),
    )
    return _table(("", ""), rows)


def _reliability(report: Report) -> str:
    most = max(one.num for one in report.reliability)
    bars = "".join(
        f'<circle cx="{_x(one.confidence)}" cy="{_y(one.accuracy)}" r="{3 + 9 * (one.num / most) ** 0.5:.1f}" '
        f'fill="#2f6f9f" fill-opacity=".6"><title>{one.num} examples: confidence {one.confidence:.2f}, '
        f"accuracy {one.accuracy:.2f}</title></circle>"
        for one in report.reliability
    )
    line = f'<line x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}" stroke="#999" stroke-dasharray="4 3"/>'
    caption = "Reliability: on the dashed line confidence is accuracy; larger dots hold more examples."
    return _figure(line + bars, "confidence", "accuracy", caption)


def _coverage(report: Report) -> str:
    points = " ".join(f"{_x(share)},{_y(accuracy)}" for share, accuracy, _ in report.coverage)
    line = f'<polyline points="{points}" fill="none" stroke="#2f6f9f" stroke-width="2"/>'
    dots = "".join(
        f'<circle cx="{_x(share)}" cy="{_y(accuracy)}" r="4" fill="#2f6f9f"><title>{_percent(share)} answered: '
        f"accuracy {_percent(accuracy)}, confidence from {least:.2f}</title></circle>"
        for share, accuracy, least in report.coverage
    )
    return _figure(line + dots, "share answered", "accuracy", "Coverage: accuracy when only the surest are answered.")


def _flips(report: Report) -> str:
    if not report.flips:
        return ""
    return "<h2>Flip rates</h2>" + _table(
        ("alteration", "answers that change"), [(name, _percent(rate)) for name, rate in report.flips.items()]
    )


def _confusion(report: Report) -> str:
    domains = sorted({*report.confusion, *(given for row in report.confusion.values() for given in row)})
    head = "".join(f'<th style="writing-mode:vertical-rl">{escape(domain)}</th>' for domain in domains)
    rows = "".join(_confusion_row(report, right, domains) for right in report.confusion)
    return f"<h2>Confusion</h2><p>Rows: right domain. Columns: given.</p><table><tr><th></th>{head}</tr>{rows}</table>"


def _confusion_row(report: Report, right: str, domains: Sequence[str]) -> str:
    row = report.confusion[right]
    total = sum(row.values())
    cells = "".join(_confusion_cell(row.get(domain, 0), total, domain == right) for domain in domains)
    return f"<tr><th>{escape(right)}</th>{cells}</tr>"


def _confusion_cell(count: int, total: int, is_right: bool) -> str:
    colour = "47,111,159" if is_right else "190,60,40"
    return f'<td style="background:rgba({colour},{count / total:.2f})">{count or ""}</td>'


def _figure(marks: str, across: str, up: str, caption: str) -> str:
    ticks = "".join(
        f'<text x="{_x(at)}" y="{SIZE - EDGE + 16}" text-anchor="middle">{at:g}</text>'
        f'<text x="{EDGE - 6}" y="{_y(at) + 4}" text-anchor="end">{at:g}</text>'
        for at in (0, 0.25, 0.5, 0.75, 1)
    )
    frame = (
        f'<rect x="{_x(0)}" y="{_y(1)}" width="{_x(1) - _x(0)}" height="{_y(0) - _y(1)}" fill="none" stroke="#ccc"/>'
    )
    names = (
        f'<text x="{SIZE / 2}" y="{SIZE - 6}" text-anchor="middle">{across}</text>'
        f'<text transform="translate(11 {SIZE / 2}) rotate(-90)" text-anchor="middle">{up}</text>'
    )
    opening = f'<svg width="{SIZE}" height="{SIZE}" role="img" aria-label="{escape(caption)}">'
    drawing = f"{opening}{frame}{ticks}{names}{marks}</svg>"
    return f"<figure>{drawing}<figcaption>{caption}</figcaption></figure>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{cell}</th>" for cell in head) if any(head) else ""
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def _x(share: float) -> float:
    return round(EDGE + share * (SIZE - 1.5 * EDGE), 1)


def _y(share: float) -> float:
    return round(SIZE - EDGE - share * (SIZE - 1.5 * EDGE), 1)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
