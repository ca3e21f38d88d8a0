"""topreward: robot progress, read out of an open vision-language model in one pass.

    import topreward as tr

    model = tr.TOPReward.from_pretrained("Qwen/Qwen3-VL-8B-Instruct")
    curve = model.score(tr.read_video("cup.mp4"), "pick up the cup")
    tr.voc(curve.log_prob_true)

Names are loaded when first used: importing topreward imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from topreward.config import Protocol, load_protocol
    from topreward.datasets import open_dataset
    from topreward.errors import TopRewardError
    from topreward.estimators.gvl import GVL
    from topreward.estimators.gvl.protocol import load_gvl_protocol
    from topreward.estimators.topreward import Stream, TOPReward
    from topreward.metrics import bootstrap_mean, kendall_tau, voc
    from topreward.monitor import SuccessMonitor
    from topreward.rewards import advantage_weights, dense_rewards, progress
    from topreward.types import Clip, Curve, Episode
    from topreward.video import read_video

try:
    __version__ = version("topreward")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"

_HOMES = {
    "Clip": "topreward.types",
    "Curve": "topreward.types",
    "Episode": "topreward.types",
    "GVL": "topreward.estimators.gvl",
    "Protocol": "topreward.config",
    "Stream": "topreward.estimators.topreward",
    "SuccessMonitor": "topreward.monitor",
    "TOPReward": "topreward.estimators.topreward",
    "TopRewardError": "topreward.errors",
    "advantage_weights": "topreward.rewards",
    "bootstrap_mean": "topreward.metrics",
    "dense_rewards": "topreward.rewards",
    "kendall_tau": "topreward.metrics",
    "load_gvl_protocol": "topreward.estimators.gvl.protocol",
    "load_protocol": "topreward.config",
    "open_dataset": "topreward.datasets",
    "progress": "topreward.rewards",
    "read_video": "topreward.video",
    "voc": "topreward.metrics",
}

__all__ = [
    "GVL",
    "Clip",
    "Curve",
    "Episode",
    "Protocol",
    "Stream",
    "SuccessMonitor",
    "TOPReward",
    "TopRewardError",
    "__version__",
    "advantage_weights",
    "bootstrap_mean",
    "dense_rewards",
    "kendall_tau",
    "load_gvl_protocol",
    "load_protocol",
    "open_dataset",
    "progress",
    "read_video",
    "voc",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'topreward' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
