"""AdamW in the memory there is: its moments in float32, in 8 bits, in bfloat16, or on the host.

bfloat16 has spacings of 1/256: an update of a weight that is smaller than half of one is lost when it is rounded to the
nearest, and at fine-tuning's learning rates nearly all are. Weights in bfloat16 are therefore rounded up or down by
chance, so that they move as they should on average.
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


def optimizer_of(config: TrainConfig) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """The class and its settings, the groups' weight decay apart. Raises ValueError where a library is missing."""
    settings: dict[str, Any] = {"lr": config.learning_rate, "betas": BETAS, "eps": EPS}
    if config.optimizer == "adamw":
        return (HostAdamW, settings) if config.offload_optimizer else (torch.optim.AdamW, settings | {"fused": True})
    try:
        import torchao.optim
    except ImportError:
        raise ValueError(f"optimizer={config.optimizer} needs torchao: pip install 'ssdfast[train]'") from None
    if config.optimizer == "adamw_8bit":
        return torchao.optim.AdamW8bit, settings
    return torchao.optim._AdamW, settings | {"bf16_stochastic_round": True}


class HostAdamW(torch.optim.Optimizer):
    """AdamW whose moments, 8 bytes a weight, stay on the host, and which computes there, a weight tensor at a time.

    A step takes each gradient and weight to the host and the weight back: 12 bytes a weight over the bus. The results
    are those of ``torch.optim.AdamW`` on the host. (torchao's CPUOffloadOptimizer takes gradients before they are
    clipped, so that clipping would do nothing.)
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
        """Moments stay on the host, where torch would take them to their weights."""
        super().load_state_dict({**state_dict, "state": {}})
        weights = [p for group in self.param_groups for p in group["params"]]
        self.state = defaultdict(dict)
        for i, state in state_dict["state"].items():
            self.state[weights[i]] = {name: value.cpu() for name, value in state.items()}
