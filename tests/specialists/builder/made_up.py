"""Profiles made up from a known distribution, in milliseconds and without a model."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from specialists.builder.histogram import DomainProfile, Profile, ProfileShape


def made_up_domain(
    seed: int, *, layers: int = 3, experts: int = 12, ranks: int = 4, tokens: int = 400, replicates: int = 8
) -> DomainProfile:
    """A domain whose gates prefer some experts; each token is a record of its own."""
    rng = np.random.default_rng(seed)
    shape = ProfileShape(layers=layers, experts=experts, ranks=ranks, replicates=replicates)
    zeros = DomainProfile.zeros(shape)
    sums = {name: array.copy() for name, array in zeros.arrays().items()}
    preference = np.log(rng.dirichlet(np.full(experts, 0.4), size=layers) + 1e-12)
    draws = rng.poisson(1, size=(replicates, tokens)).astype(np.float64)
    for layer in range(layers):
        logits = preference[layer] + rng.gumbel(size=(tokens, experts))
        chosen = np.argsort(-logits, axis=1)[:, :ranks]
        weights = np.exp(np.take_along_axis(logits, chosen, axis=1))
        weights /= weights.sum(axis=1, keepdims=True)
        norms = rng.gamma(2.0, 1.0, size=(tokens, ranks))
        for rank in range(ranks):
            ids, weight, norm = chosen[:, rank], weights[:, rank], norms[:, rank]
            np.add.at(sums["count"][layer, :, rank], ids, 1)
            np.add.at(sums["weight_sum"][layer, :, rank], ids, weight)
            np.add.at(sums["contribution_sum"][layer], ids, weight * norm)
            np.add.at(sums["contribution_square_sum"][layer], ids, (weight * norm) ** 2)
            np.add.at(sums["output_norm_sum"][layer], ids, norm)
            np.maximum.at(sums["contribution_max"][layer], ids, weight * norm)
            np.maximum.at(sums["output_norm_max"][layer], ids, norm)
            for replicate, times in enumerate(draws):
                np.add.at(sums["replicate_count"][replicate, layer], ids, times)
                np.add.at(sums["replicate_weight"][replicate, layer], ids, times * weight)
                np.add.at(sums["replicate_contribution"][replicate, layer], ids, times * weight * norm)
        sums["num_tokens"][layer] = tokens
        sums["replicate_tokens"][:, layer] = draws.sum(axis=1)
    return replace(zeros, **sums, num_records=tokens, corpus=f"sha256:{seed:064x}")  # type: ignore[arg-type]


def made_up_profile(names: Sequence[str] = ("math", "law", "reasoning"), **sizes: int) -> Profile:
    domains = {name: made_up_domain(seed, **sizes) for seed, name in enumerate(names)}
    num_layers = next(iter(domains.values())).shape.layers
    return Profile(layers=tuple(range(1, 1 + num_layers)), domains=domains, parent="pico", has_contributions=True)
