"""GVL, the generative baseline: shuffled frames in, percentages that the model writes out.

    estimator  the class that people use
    protocol   how a curve is made, as data
    prompts    which frames, in which order, between which texts
    showing    what is put before the model, in tokens and pixels
    answers    what it wrote, read strictly

Importing this package imports no torch: `GVL` loads when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from topreward.estimators.gvl.estimator import GVL

__all__ = ["GVL"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from topreward.estimators.gvl import estimator

        return getattr(estimator, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
