"""TOPReward: log p(` True` | video prefix, instruction), for all prefixes in one pass.

    estimator     the class that people use
    prompts       what is said about the video, and which answers are scored
    call          one clip, its instructions and a protocol on their way through the model
    sight         what the vision tower sees of clips
    one_pass      the fast path
    together      many clips in as few passes as fit
    slow_twin     the plain way, to which it is held
    arriving      which frames are shown while a video is filmed
    stream        values of a video that grows
    stream_state  what it says and what it remembers
    pool          several of them in the same passes

Importing this package imports no torch: `TOPReward` and `Stream` load when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from topreward.estimators.topreward.estimator import TOPReward
    from topreward.estimators.topreward.stream import Stream

__all__ = ["Stream", "TOPReward"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from topreward.estimators.topreward import estimator  # imports the stream as well

        return getattr(estimator, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
