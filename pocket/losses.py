"""What training minimises: next-token loss under the logit softcap, and what is asked of the gates.

The gate losses see probabilities and which sequence a token is of; no domain labels.
"""

from typing import Any

import torch
from torch import Tensor

CHUNK_TOKENS = 256  # the logits of so many tokens stay in the cache


class SoftcappedLoss(torch.autograd.Function):
    """Mean −ln p of the targets, p = softmax(cap · tanh(hidden · embeddingᵀ / cap)), with logits never kept whole.

    hidden [tokens, width] and embedding [vocabulary, width] in the type to compute in; targets [tokens] int64.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, embedding: Tensor, targets: Tensor, cap: float) -> Tensor:  # type: ignore[override]
        tokens = len(hidden)
        to_hidden, to_embedding = torch.empty_like(hidden), torch.zeros_like(embedding, dtype=torch.float32)
        total = torch.zeros(())
        for start in range(0, tokens, CHUNK_TOKENS):
            part, wanted = hidden[start : start + CHUNK_TOKENS], targets[start : start + CHUNK_TOKENS, None]
            squashed = torch.mm(part, embedding.T).float().div_(cap).tanh_()
            logp = torch.log_softmax(squashed * cap, dim=-1)
            total -= logp.gather(1, wanted).sum()
            slope = logp.exp_().scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=torch.float32))
            slope = slope.mul_(squashed.square_().neg_().add_(1)).div_(tokens).to(hidden.dtype)
            torch.mm(slope, embedding, out=to_hidden[start : start + CHUNK_TOKENS])
            to_embedding += torch.mm(slope.T, part)
        ctx.save_for_backward(to_hidden, to_embedding)
        return total / tokens

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        to_hidden, to_embedding = ctx.saved_tensors
        return to_hidden * gradient, (to_embedding * gradient).to(to_hidden.dtype), None, None


def balance_loss(probabilities: Tensor, chosen: Tensor) -> Tensor:
    """experts · Σ_e share chosen · mean probability (Switch Transformers, eq. 4), over all tokens of the batch.

    1 when even. A batch mixes domains, so it asks for use over the corpus, not within a domain.
    """
    experts = probabilities.shape[-1]
    share = torch.bincount(chosen.reshape(-1), minlength=experts) / chosen.numel()
    return experts * (share * probabilities.mean(0)).sum()


def spread_loss(probabilities: Tensor, sequences: int, most: float) -> Tensor:
    """How far a sequence's mean gate distribution is broader than `most` experts, in nats; mean over sequences.

    probabilities [sequences · tokens, experts]. Together with `balance_loss` it asks that a text be served by few
    experts and different texts by different ones: the mutual information of text and expert.
    """
    mean = probabilities.view(sequences, -1, probabilities.shape[-1]).mean(1)
    entropy = -(mean * (mean + 1e-9).log()).sum(-1)
    return torch.relu(entropy - torch.log(torch.tensor(most))).mean()
