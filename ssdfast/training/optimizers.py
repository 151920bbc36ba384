"""AdamW with its moments in float32, in 8 bits, in bfloat16, or on the host.

A bfloat16 weight has ULPs of 1/256 to 1/128 of its size. Rounding to nearest loses an update below half an ULP, and at
the learning rates of fine-tuning nearly all are. Weights in bfloat16 are therefore rounded stochastically, so that they
change by the right amount on average.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from ..config import TrainConfig

BETAS, EPS = (0.9, 0.95), 1e-8


def optimizer_cls_and_kwargs(config: TrainConfig) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """The class and its arguments, without weight decay, which parameter groups set. Raises ValueError if torchao is
    missing."""
    kwargs: dict[str, Any] = {"lr": config.learning_rate, "betas": BETAS, "eps": EPS}
    if config.optimizer == "adamw":
        return (HostAdamW, kwargs) if config.offload_optimizer else (torch.optim.AdamW, kwargs | {"fused": True})
    try:
        import torchao.optim
    except ImportError:
        raise ValueError(f"optimizer={config.optimizer} needs torchao: pip install 'ssdfast[train]'") from None
    if config.optimizer == "adamw_8bit":
        return torchao.optim.AdamW8bit, kwargs
    return torchao.optim._AdamW, kwargs | {"bf16_stochastic_round": True}


class HostAdamW(torch.optim.Optimizer):
    """AdamW whose moments, 8 bytes per weight, stay on the host, and which computes there, one weight tensor at a time.

    A step copies each gradient and weight to the host and the weight back: 12 bytes per weight over the bus. The
    results are those of ``torch.optim.AdamW`` on the host. (torchao's CPUOffloadOptimizer copies gradients before they
    are clipped, so that clipping would do nothing.)
    """

    def __init__(
        self, params: Iterable[Any], lr: float, betas: tuple[float, float], eps: float, weight_decay: float = 0
    ):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, group)

    def _update(self, p: Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = torch.zeros(p.shape, dtype=torch.float32, device="cpu", pin_memory=p.is_cuda)
        assert p.grad is not None
        weight, gradient = p.detach().to("cpu", torch.float32), p.grad.to("cpu", torch.float32)
        adamw(
            [weight], [gradient], [state["exp_avg"]], [state["exp_avg_sq"]], [], [state["step"]],
            fused=True, amsgrad=False, beta1=group["betas"][0], beta2=group["betas"][1], lr=group["lr"],
            weight_decay=group["weight_decay"], eps=group["eps"], maximize=False,
        )  # fmt: skip
        p.copy_(weight)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Moments stay on the host, where torch would copy them to their weights' device."""
        super().load_state_dict({**state_dict, "state": {}})
        weights = [p for group in self.param_groups for p in group["params"]]
        self.state = defaultdict(dict)
        for i, state in state_dict["state"].items():
            self.state[weights[i]] = {name: value.cpu() for name, value in state.items()}
