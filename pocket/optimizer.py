"""Two rules for one step: matrices inside the blocks by Muon, everything else by AdamW.

Muon (K. Jordan 2024): momentum, made orthogonal by five Newton–Schulz steps. The experts' matrices are orthogonalised
each by itself, all in one batched product.
"""

import torch
from torch import Tensor, nn

QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan's coefficients: fast to singular values near 1, not exactly 1


def orthogonal(matrices: Tensor, steps: int = 5) -> Tensor:
    """[..., a, b] → about U·Vᵀ of each matrix's singular value decomposition, in bfloat16."""
    a, b, c = QUINTIC
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = (matrices.mT if tall else matrices).to(torch.bfloat16)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """For matrices [..., out, in]; the step grows with √(out/in) where that is above 1."""

    def __init__(
        self, parameters: list[nn.Parameter], *, lr: float, momentum: float = 0.95, decay: float = 0.01
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                buffer = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                buffer.lerp_(parameter.grad, 1 - group["momentum"])
                ahead = parameter.grad.lerp(buffer, group["momentum"])
                size = max(1.0, parameter.shape[-2] / parameter.shape[-1]) ** 0.5
                parameter.mul_(1 - group["lr"] * group["decay"])
                parameter.add_(orthogonal(ahead).float(), alpha=-group["lr"] * size)


def optimizers(model: nn.Module, *, matrix_lr: float, other_lr: float) -> list[torch.optim.Optimizer]:
    inner = [(name, value) for name, value in model.named_parameters()]
    matrices = [value for name, value in inner if value.ndim > 1 and "embed" not in name and "router" not in name]
    chosen = {id(value) for value in matrices}
    others = [value for _, value in inner if id(value) not in chosen]
    adam = torch.optim.AdamW(others, lr=other_lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    return [Muon(matrices, lr=matrix_lr), adam]
