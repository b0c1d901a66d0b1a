"""Adds what the gates did with some tokens to the sums of a DomainProfile.

All layers, tokens and ranks of a decode at once, by counting combined indices: a profile must not slow down the model
it watches. Where the traces come from is not known here.
"""

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from specialists.builder.histogram import DomainProfile
from specialists.builder.moe_graph import GateTrace


def resampling_draws(domain: str, records: Sequence[int], *, replicates: int, seed: int) -> NDArray[np.float64]:
    """[record, replicate]: how often each record counts in each bootstrap replicate, Poisson(1) distributed.

    Depends on the domain's name, the record's number and the seed alone, so that a resumed run draws the same.
    """
    stream = zlib.crc32(domain.encode())
    draws = [np.random.default_rng((seed, stream, record)).poisson(1.0, replicates) for record in records]
    return np.asarray(draws, dtype=np.float64).reshape(len(records), replicates)


def add_trace(profile: DomainProfile, trace: GateTrace, rows: NDArray[np.intp], draws: NDArray[np.float64]) -> None:
    """Add a trace to `profile`, in place. `rows` says for each token which row of `draws` its record has."""
    layers, experts, ranks = profile.count.shape
    cells = np.arange(layers)[:, None, None] * experts + trace.experts  # (layer, expert) as one number
    ranked = (cells * ranks + np.arange(ranks)).ravel()
    weights = trace.weights.astype(np.float64)
    normalised = (weights / np.maximum(weights.sum(axis=2, keepdims=True), np.finfo(np.float64).tiny)).ravel()

    profile.count[...] += _sums(ranked, None, profile.count.size).reshape(profile.count.shape).astype(np.int64)
    profile.weight_sum[...] += _sums(ranked, normalised, profile.count.size).reshape(profile.count.shape)
    profile.num_tokens[...] += trace.experts.shape[1]

    resample = _Resample(cells, rows, draws, layers * experts)
    profile.replicate_tokens[...] += draws[rows].sum(axis=0)[:, None]
    profile.replicate_count[...] += resample(None).reshape(profile.replicate_count.shape)
    profile.replicate_weight[...] += resample(normalised).reshape(profile.replicate_weight.shape)
    if trace.norms is not None:
        norms = trace.norms.astype(np.float64).ravel()
        _add_contributions(profile, cells.ravel(), norms, weights.ravel())
        profile.replicate_contribution[...] += resample(norms).reshape(profile.replicate_contribution.shape)


def _add_contributions(
    profile: DomainProfile, cells: NDArray[np.intp], norms: NDArray[np.float64], weights: NDArray[np.float64]
) -> None:
    """`norms` are ‖w·f‖, so ‖f‖ = ‖w·f‖ / |w|; an expert of weight 0 leaves no trace of its output and counts as 0."""
    shape, size = profile.contribution_sum.shape, profile.contribution_sum.size
    outputs = np.divide(norms, np.abs(weights), out=np.zeros_like(norms), where=weights != 0)
    profile.contribution_sum[...] += _sums(cells, norms, size).reshape(shape)
    profile.contribution_square_sum[...] += _sums(cells, norms * norms, size).reshape(shape)
    profile.output_norm_sum[...] += _sums(cells, outputs, size).reshape(shape)
    np.maximum.at(profile.contribution_max.reshape(-1), cells, norms)
    np.maximum.at(profile.output_norm_max.reshape(-1), cells, outputs)


class _Resample:
    """Sums by cell in each replicate: sums by record first, then each record as often as it was drawn."""

    def __init__(
        self, cells: NDArray[np.intp], rows: NDArray[np.intp], draws: NDArray[np.float64], num_cells: int
    ) -> None:
        self._index = (rows[None, :, None] * num_cells + cells).ravel()
        self._draws = draws
        self._num_cells = num_cells

    def __call__(self, values: NDArray[np.float64] | None) -> NDArray[np.float64]:
        """[replicate, cell]."""
        by_record = _sums(self._index, values, len(self._draws) * self._num_cells)
        return np.asarray(self._draws.T @ by_record.reshape(len(self._draws), self._num_cells))


def _sums(index: NDArray[np.intp], values: NDArray[np.float64] | None, size: int) -> NDArray[np.float64]:
    return np.bincount(index, weights=values, minlength=size).astype(np.float64)
