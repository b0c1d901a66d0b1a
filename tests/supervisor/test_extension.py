"""Properties of `supervisor.extension`: domains added without retraining."""

from pathlib import Path

import numpy as np
import pytest

from supervisor.errors import InvalidExamples, InvalidModel
from supervisor.extension import collisions, features_of, fit_extension, load_extensions, nearest_mean, save_extension
from supervisor.quantized import Floats


def _directions(rng: np.random.Generator, centre: Floats, num: int, spread: float) -> Floats:
    rows = centre + spread * rng.normal(size=(num, len(centre)))
    unit: Floats = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


RNG = np.random.default_rng(11)
BANK = np.concatenate([_directions(RNG, np.eye(16, dtype=np.float32)[at], 40, 0.08) for at in (0, 1, 2)])
BANK_DOMAINS = ["law"] * 40 + ["math"] * 40 + ["web"] * 40
NEW = _directions(RNG, np.eye(16, dtype=np.float32)[9], 8, 0.08)


def test_a_distant_domain_is_recognised_and_takes_nothing() -> None:
    """Unlike anything stored: its examples are told apart, and no stored one is lost."""
    extension = fit_extension("sailing", NEW, [f"q{n}" for n in range(8)], BANK)
    found = collisions(extension, BANK, BANK_DOMAINS, ["law"] * 8)
    assert found.recognised == 1.0
    assert found.takes_from == ()
    fresh = _directions(np.random.default_rng(2), np.eye(16, dtype=np.float32)[9], 1, 0.08)[0]
    assert extension.probability(fresh, nearest_mean(BANK @ fresh)) > 0.5
    assert extension.probability(BANK[0], nearest_mean(BANK @ BANK[0])) < 0.05


def test_a_domain_inside_an_old_one_is_reported() -> None:
    """Examples drawn from an old domain: the report names that domain as what they were taken for."""
    inside = _directions(np.random.default_rng(3), np.eye(16, dtype=np.float32)[1], 8, 0.08)
    extension = fit_extension("sums", inside, ["q"] * 8, BANK)
    found = collisions(extension, BANK, BANK_DOMAINS, ["math"] * 8)
    assert found.examples_look_like == (("math", 8),)
    assert found.recognised < 1.0 or found.takes_from


def test_an_example_is_never_its_own_witness() -> None:
    """Nearness leaves the example itself out, on both sides."""
    inside, outside = features_of(NEW, BANK)
    assert float(inside.max()) < 1.0
    assert float(outside.max()) < 0.5


def test_too_few_examples_are_refused() -> None:
    """Two examples cannot be checked against each other in any useful way."""
    with pytest.raises(InvalidExamples, match="at least 3"):
        fit_extension("x", NEW[:2], ["a", "b"], BANK)


def test_an_extension_comes_back_from_disk_as_it_was(tmp_path: Path) -> None:
    """Saving and loading changes nothing; a broken file is named."""
    extension = fit_extension("sailing", NEW, [f"q{n}" for n in range(8)], BANK)
    save_extension(extension, tmp_path)
    (loaded,) = load_extensions(tmp_path)
    assert (loaded.name, loaded.texts, loaded.curve) == (extension.name, extension.texts, extension.curve)
    assert np.array_equal(loaded.vectors, extension.vectors)
    (tmp_path / "extensions" / "broken.npz").write_bytes(b"no archive")
    with pytest.raises(InvalidModel, match=r"broken\.npz"):
        load_extensions(tmp_path)
