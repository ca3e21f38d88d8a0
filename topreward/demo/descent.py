"""How the demo model's weights move: Muon for the matrices inside the layers, AdamW for all else.

In: named weights and a number of steps. Out: weights a step further. Muon makes every direction of a matrix's step
equally long; on the first lesson it reached in 1 000 steps what AdamW alone did not reach in 2 000.

Source: K. Jordan et al., Muon: an optimizer for hidden layers in neural networks (2024), as in torch.optim.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from topreward.errors import ConfigError

LARGEST_GRADIENT = 1.0


@dataclass(frozen=True)
class Rates:
    """Highest step sizes of a course; they rise for its first part and fall to nothing by its end."""

    matrices: float = 6e-3
    """Muon's, in AdamW's units (steps of the same root mean square)."""
    rest: float = 1.5e-3
    """AdamW's: embeddings, norms, biases, the patch embedding."""

    def times(self, share: float) -> Rates:
        """The same, `share` as fast."""
        return Rates(self.matrices * share, self.rest * share)


class Descent:
    """Both optimisers over one course of `steps` steps.

    `groups`: named weights with the rates they move at. Raises ConfigError where torch has no Muon (before 2.9).
    """

    def __init__(
        self, groups: Iterable[tuple[Mapping[str, nn.Parameter], Rates]], *, steps: int, warm_up: float
    ) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise ConfigError(f"training wants torch 2.9 or newer, which has Muon; this is {torch.__version__}")
        matrices: list[dict[str, Any]] = []
        rest: list[dict[str, Any]] = []
        for named, rates in groups:
            inner = {name for name, weight in named.items() if is_inner_matrix(name, weight)}
            matrices.append({"params": [named[n] for n in named if n in inner], "lr": rates.matrices})
            rest.append({"params": [named[n] for n in named if n not in inner], "lr": rates.rest})
        self.weights = [weight for group in matrices + rest for weight in group["params"]]
        muon = torch.optim.Muon(matrices, weight_decay=0.02, adjust_lr_fn="match_rms_adamw")
        adam = torch.optim.AdamW(rest, betas=(0.9, 0.98), weight_decay=0.02)
        self._optimisers: list[torch.optim.Optimizer] = [muon, adam]
        self._schedules = [
            torch.optim.lr_scheduler.OneCycleLR(
                optimiser,
                [group["lr"] for group in optimiser.param_groups],
                total_steps=steps,
                pct_start=warm_up,
                cycle_momentum=False,
            )
            for optimiser in self._optimisers
        ]

    def step(self, loss: Tensor) -> None:
        """One step down `loss`."""
        for optimiser in self._optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.weights, LARGEST_GRADIENT)
        for optimiser, schedule in zip(self._optimisers, self._schedules, strict=True):
            optimiser.step()
            schedule.step()


def is_inner_matrix(name: str, weight: Tensor) -> bool:
    """Whether a weight is a matrix that maps hidden states to hidden states: no embedding, no head, no readout."""
    return weight.ndim == 2 and any(part in name for part in ("blocks.", "layers.", "merger"))
