"""Which versions measured a run's episodes, where it went on under others than it began with.

In go episodes; out come the versions and, in words, how they differ from today's. No curve is thrown away for them:
what a version changes is for the reader to judge.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence

from topreward.evaluation.rows import EpisodeRows
from topreward.provenance import PACKAGES, software

Versions = Mapping[str, str | None]


def measured_with(episodes: Sequence[EpisodeRows]) -> list[tuple[Versions | None, int]]:
    """Versions and of how many episodes, the most frequent first; None where the run's folder does not say."""
    counts = Counter(json.dumps(episode.software, sort_keys=True) for episode in episodes)
    return [(json.loads(text), count) for text, count in counts.most_common()]


def version_notes(episodes: Sequence[EpisodeRows]) -> list[str]:
    """A sentence for every set of package versions that is not today's."""
    today = software()
    differing: Counter[str] = Counter()
    for versions, count in measured_with(episodes):
        there = versions or {}
        other = [
            f"{name} {there[name]} (here {today[name]})"
            for name in PACKAGES
            if name in there and name in today and there[name] != today[name]
        ]
        if other:
            differing[", ".join(other)] += count
    return [
        f"{count} of {len(episodes)} episodes were measured earlier, with {text}" for text, count in differing.items()
    ]
