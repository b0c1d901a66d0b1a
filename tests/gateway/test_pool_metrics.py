"""The pool's gauges: one for each engine in memory, read without waking any."""

from dataclasses import replace

from prometheus_client import CollectorRegistry, generate_latest

from gateway.pool_metrics import PoolMetrics, engine_name
from specialists.engine.protocol import EngineStatus, Pooling
from specialists.pool.status import PoolStatus
from tests.fakes import engine_report, spec_named


def test_every_engine_has_its_gauges() -> None:
    """Bytes, leases, turns, parked conversations; a second frame of one family has a name of its own."""
    first = engine_report(
        spec_named("parent"),
        footprint_bytes=1000,
        leases=3,
        activity=EngineStatus(running=1, waiting=0, parked=2, parked_bytes=64),
        serving="math",
        waiting_turns={"law": 2, "web": 1},
        why_fixed="mixed types",
    )
    second = replace(first, spec=replace(first.spec, replica=1), activity=None, why_fixed=None, waiting_turns={})
    registry = CollectorRegistry()
    registry.register(PoolMetrics(lambda: PoolStatus(budget_bytes=1, used_bytes=1, engines=(first, second), waiting=7)))
    said = generate_latest(registry).decode()

    assert "coe_waiting 7.0" in said
    for line in ("bytes{%s} 1000.0", "leases{%s} 3.0"):
        assert f"coe_engine_{line}" % 'engine="parent.gguf"' in said
        assert f"coe_engine_{line}" % 'engine="parent.gguf #2"' in said
    assert 'coe_turns_waiting{engine="parent.gguf"} 3.0' in said
    assert 'coe_parked_sequences{engine="parent.gguf"} 2.0' in said
    assert 'coe_parked_bytes{engine="parent.gguf #2"} 0.0' in said
    assert 'coe_frame_fixed{engine="parent.gguf"} 1.0' in said


def test_one_file_may_have_two_engines() -> None:
    """One that generates and one that makes embeddings have names of their own."""
    spec = spec_named("m")

    assert [engine_name(each) for each in (spec, replace(spec, pooling=Pooling.CLS))] == ["m.gguf", "m.gguf (cls)"]
