"""Profiles: sums that add up, files that come back as they were, and hostile files that cost one clear error."""

import io
import json
import zipfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specialists.builder.accumulation import add_trace, resampling_draws
from specialists.builder.histogram import (
    DomainProfile,
    Profile,
    ProfileError,
    ProfileShape,
    merge,
    read_profile,
    write_profile,
)
from specialists.builder.moe_graph import GateTrace
from specialists.builder.npz_file import META, write_npz

SHAPE = ProfileShape(layers=2, experts=5, ranks=3, replicates=4)


def random_trace(rng: np.random.Generator, tokens: int, shape: ProfileShape = SHAPE) -> GateTrace:
    """Distinct experts for each token, positive weights and norms."""
    order = rng.permuted(np.tile(np.arange(shape.experts), (shape.layers, tokens, 1)), axis=2)
    sizes = (shape.layers, tokens, shape.ranks)
    weights, norms = rng.random(sizes) + 0.1, rng.random(sizes)
    return GateTrace(order[..., : shape.ranks].astype(np.int32), weights.astype(np.float32), norms.astype(np.float32))


def random_profile(seed: int, *, tokens: int = 20, corpus: str = "sha256:0") -> DomainProfile:
    rng = np.random.default_rng(seed)
    profile = DomainProfile.zeros(SHAPE, corpus=corpus)
    draws = resampling_draws("x", [seed], replicates=SHAPE.replicates, seed=0)
    add_trace(profile, random_trace(rng, tokens), np.zeros(tokens, dtype=np.intp), draws)
    return replace(profile, num_records=1)


def example(**domains: DomainProfile) -> Profile:
    found = domains or {"math": random_profile(1), "law": random_profile(2)}
    return Profile(layers=(1, 3), domains=found, parent="sampled-sha256:ab", has_contributions=True, settings={"a": 1})


@given(seed=st.integers(0, 10**6), tokens=st.integers(1, 12), records=st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_sums_are_those_of_the_obvious_loop(seed: int, tokens: int, records: int) -> None:
    """Every array equals what adding up token by token gives."""
    rng = np.random.default_rng(seed)
    trace, rows = random_trace(rng, tokens), rng.integers(0, records, tokens)
    draws = rng.poisson(1.0, (records, SHAPE.replicates)).astype(np.float64)
    profile, expected = DomainProfile.zeros(SHAPE), DomainProfile.zeros(SHAPE)
    add_trace(profile, trace, rows, draws)

    assert trace.norms is not None
    for layer in range(SHAPE.layers):
        for token in range(tokens):
            expected.num_tokens[layer] += 1
            expected.replicate_tokens[:, layer] += draws[rows[token]]
            total = float(trace.weights[layer, token].astype(np.float64).sum())
            for rank, expert in enumerate(trace.experts[layer, token]):
                at = (layer, int(expert))
                weight, norm = float(trace.weights[layer, token, rank]), float(trace.norms[layer, token, rank])
                expected.count[(*at, rank)] += 1
                expected.weight_sum[(*at, rank)] += weight / total
                expected.contribution_sum[at] += norm
                expected.contribution_square_sum[at] += norm * norm
                expected.contribution_max[at] = max(expected.contribution_max[at], norm)
                expected.output_norm_sum[at] += norm / weight
                expected.output_norm_max[at] = max(expected.output_norm_max[at], norm / weight)
                expected.replicate_count[(slice(None), *at)] += draws[rows[token]]
                expected.replicate_weight[(slice(None), *at)] += draws[rows[token]] * weight / total
                expected.replicate_contribution[(slice(None), *at)] += draws[rows[token]] * norm
    for name, array in profile.arrays().items():
        np.testing.assert_allclose(array, expected.arrays()[name], rtol=1e-12, err_msg=name)


def test_draws_depend_on_domain_record_and_seed_alone() -> None:
    """A resumed run draws for a record what an uninterrupted one would, and records are drawn once on average."""
    draws = resampling_draws("math", range(300), replicates=32, seed=7)

    assert np.array_equal(resampling_draws("math", [17, 5], replicates=32, seed=7), draws[[17, 5]])
    assert not np.array_equal(resampling_draws("law", range(300), replicates=32, seed=7), draws)
    assert draws.mean() == pytest.approx(1.0, abs=0.05)
    assert draws.var() == pytest.approx(1.0, abs=0.1)


def test_a_profile_comes_back_from_its_file(tmp_path: Path) -> None:
    """All arrays and all that is said about them, read-only."""
    point = {"tokens": 20, "jaccard": 0.5}
    profile = example(math=replace(random_profile(1), curve=(point,), num_skipped=3), law=random_profile(2))
    write_profile(profile, tmp_path / "p.npz")
    found = read_profile(tmp_path / "p.npz")

    assert (found.layers, found.parent, found.settings, list(found.domains)) == (
        (1, 3),
        "sampled-sha256:ab",
        {"a": 1},
        ["math", "law"],
    )
    for name, domain in profile.domains.items():
        for field, array in domain.arrays().items():
            assert np.array_equal(found.domains[name].arrays()[field], array)
            assert not found.domains[name].arrays()[field].flags.writeable
    math = found.domain("math")
    assert (math.num_records, math.num_skipped, math.corpus, math.curve) == (1, 3, "sha256:0", (point,))


def test_equal_profiles_make_equal_files(tmp_path: Path) -> None:
    """No date, name or order of writing gets into the bytes; numpy reads them too."""
    for name in ("a.npz", "b.npz"):
        write_profile(example(), tmp_path / name)

    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert np.array_equal(arrays["0.count"], example().domain("math").count)


def test_profiles_add_up_in_any_order() -> None:
    """Merging increments gives the profile of all their records, whichever comes first."""
    parts = [example(math=random_profile(seed)) for seed in range(3)]
    forwards = merge(merge(parts[0], parts[1]), parts[2]).domain("math")
    backwards = merge(parts[2], merge(parts[1], parts[0])).domain("math")

    assert forwards.num_records == 3
    assert int(forwards.num_tokens[0]) == 60
    for name, array in forwards.arrays().items():
        np.testing.assert_allclose(array, backwards.arrays()[name], rtol=1e-12)
    assert forwards.contribution_max.max() == max(p.domain("math").contribution_max.max() for p in parts)


@pytest.mark.parametrize("change", [{"parent": "other"}, {"layers": (0, 1)}, {"has_contributions": False}])
def test_profiles_of_different_making_do_not_merge(change: dict[str, object]) -> None:
    """Another parent, other layers or other statistics: the error names which."""
    with pytest.raises(ProfileError, match=next(iter(change))):
        merge(example(), replace(example(), **change))  # type: ignore[arg-type]


def test_a_domain_that_was_not_profiled_is_named() -> None:
    """The error lists what there is."""
    with pytest.raises(ProfileError, match="'physics' was not profiled; there are math, law"):
        example().domain("physics")


def rewritten(path: Path, **members: bytes | None) -> Path:
    """The archive with members replaced, or left out where None."""
    with zipfile.ZipFile(path) as archive:
        contents: dict[str, bytes | None] = {name: archive.read(name) for name in archive.namelist()}
    contents |= {f"{name.replace('_at_', '.')}.npy": data for name, data in members.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents.items():
            if data is not None:
                archive.writestr(name, data)
    return path


def npy(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def claimed(shape: str) -> bytes:
    """The header of a double array that claims `shape`, and a few bytes."""
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00v\x00" + text.encode() + bytes(64)


def changed_meta(path: Path, **changes: object) -> bytes:
    with np.load(path) as arrays:
        meta = json.loads(bytes(arrays[META]))
    return npy(np.frombuffer(json.dumps(meta | changes).encode(), dtype=np.uint8))


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"0_at_count": None}, "no array '0.count'"),
        ({"0_at_weight_sum": claimed("(1099511627776,)")}, "expected"),
        ({"0_at_weight_sum": claimed("(2, 5, 3)")}, "truncated"),
        ({"0_at_weight_sum": npy(np.zeros((2, 5, 3), dtype=np.float32))}, "float32"),
        ({"0_at_weight_sum": npy(np.full((2, 5, 3), np.nan))}, "weight_sum"),
        ({"0_at_count": npy(np.zeros((2, 5, 3), dtype=np.int64))}, "num_tokens"),
        ({"0_at_weight_sum": npy(np.array([print], dtype=object))}, "expected"),
        ({"0_at_weight_sum": b"\x93NUMPY\x03\x00" + b"\xff" * 40}, "version"),
        ({"0_at_weight_sum": b""}, "damaged"),
        ({"meta": None}, "no array 'meta'"),
        ({"meta": npy(np.frombuffer(b"[" * 100_000, dtype=np.uint8))}, "meta"),
        ({"meta": npy(np.frombuffer(b'{"format": "other"}', dtype=np.uint8))}, "format"),
    ],
)
def test_a_damaged_member_is_named(tmp_path: Path, members: dict[str, bytes | None], said: str) -> None:
    """Missing, short, of another type, not finite, pickled or contradicting arrays: one error that says which."""
    path = tmp_path / "p.npz"
    write_profile(example(), path)

    with pytest.raises(ProfileError, match=r"p\.npz") as caught:
        read_profile(rewritten(path, **members))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"shape": {"layers": 1024, "experts": 4096, "ranks": 64, "replicates": 1024}}, "would take"),
        ({"shape": {"layers": 10**9, "experts": 1, "ranks": 1, "replicates": 1}}, "layers"),
        ({"shape": {"layers": True, "experts": 1, "ranks": 1, "replicates": 1}}, "layers"),
        ({"shape": []}, "shape"),
        ({"domains": []}, "domains"),
        ({"domains": [{"name": "a"}] * 300}, "domains"),
        ({"domains": [4]}, "domains"),
        ({"layers": [3, 1]}, "layers"),
        ({"layers": [1, "3"]}, "layers"),
        ({"parent": None}, "parent"),
    ],
)
def test_meta_that_does_not_fit_is_named(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    """Sizes beyond what a model has are refused before anything of that size is read."""
    path = tmp_path / "p.npz"
    write_profile(example(), path)

    with pytest.raises(ProfileError, match=said):
        read_profile(rewritten(path, meta=changed_meta(path, **changes)))


def test_a_missing_file_and_another_format_are_told_apart(tmp_path: Path) -> None:
    """Neither is a stack trace."""
    (tmp_path / "text.npz").write_text("not a zip")
    (tmp_path / "end.npz").write_bytes(b"PK\x05\x06" + b"\xfe" * 18)

    with pytest.raises(ProfileError, match="no such file"):
        read_profile(tmp_path / "missing.npz")
    for name in ("text.npz", "end.npz"):
        with pytest.raises(ProfileError, match=r"not an \.npz file"):
            read_profile(tmp_path / name)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_no_damage_escapes_as_another_error(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Bytes changed, cut off or put in anywhere: the profile is read, or a ProfileError is raised."""
    path = tmp_path_factory.mktemp("fuzz") / "p.npz"
    write_profile(example(math=random_profile(1)), path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["change", "cut", "insert"])):
            case "change":
                content[at] = data.draw(st.integers(0, 255))
            case "cut":
                del content[at : at + data.draw(st.integers(1, 64))]
            case "insert":
                content[at:at] = data.draw(st.binary(min_size=1, max_size=8))
        content = content or bytearray(1)
    path.write_bytes(content)

    with suppress(ProfileError):
        read_profile(path)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    """An array that cannot be written ends in an error, not in half a file."""
    path = tmp_path / "p.npz"
    write_profile(example(), path)
    before = path.read_bytes()

    with pytest.raises(ValueError, match=r"[Oo]bject"):
        write_npz(path, {"bad": np.array([object()])}, "{}")
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["p.npz"]
