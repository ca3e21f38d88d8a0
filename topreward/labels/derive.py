"""Curves of a whole dataset → labels: what is taken over all episodes first, then frame by frame.

In goes a run's folder and one estimator's name; out come Labels, which make an episode's frames when they are asked
for them. No model runs and no video is opened. What is taken over the whole dataset waits until every part is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topreward.errors import ConfigError, TopRewardError
from topreward.evaluation.success import Success, detect
from topreward.jobs.episode import place
from topreward.jobs.stored import Stored
from topreward.labels.anchors import Anchor, anchors_of
from topreward.labels.audit import Audit, audit
from topreward.labels.kept import Kept, keep
from topreward.labels.review import Facts, look
from topreward.labels.settings import LabelSettings
from topreward.labels.signals import (
    Gains,
    clipped_weights,
    gains_over,
    horizon_advantages,
    positive_threshold,
    rabc_weights,
    spread,
    step_rewards,
    suggested_kappa,
)
from topreward.rewards import HARDLY_DIFFERENT, exponential_weights, progress, relative_spread

LEROBOT_KAPPA = 0.01
"""LeRobot's default, where no better one can be told."""

NAN = float("nan")


@dataclass(frozen=True)
class Overall:
    """What is taken over the whole dataset; of a dataset that is not complete, nothing is."""

    anchors: Mapping[str, Anchor] = field(default_factory=dict, repr=False)
    """By instruction."""
    longest: Mapping[str, int] = field(default_factory=dict, repr=False)
    """Frames of each instruction's longest episode."""
    beta: float = NAN
    weight_shift: float = NAN
    """Largest advantage: it is taken from all before exp, so that nothing overflows."""
    weight_mean: float = NAN
    """Mean of exp((A - shift) / beta), which the weights are divided by."""
    weight_spread: float = NAN
    """Standard deviation of the weights, whose mean is 1."""
    advantage_std: float = NAN
    gains: Gains | None = None
    """Of progress over a chunk."""
    kappa: float = NAN
    kappa_suggested: float | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict, repr=False)
    """Of a positive advantage, by instruction; all the same where the share is taken over all frames."""
    success_threshold: float = NAN
    success: Success | None = None
    """How the scores tell the dataset's own success labels, where it has any."""

    @property
    def waiting(self) -> bool:
        """Whether nothing was taken yet: the dataset is not complete."""
        return self.gains is None


@dataclass(frozen=True, eq=False)
class Labels:
    """One estimator's labels of all episodes."""

    estimator: str
    settings: LabelSettings
    run: Mapping[str, Any] = field(repr=False)
    """What the run's settings.json holds."""
    episodes: tuple[Kept, ...] = field(repr=False)
    """In the order of their `episode_index`, where the dataset has one."""
    planned: int
    overall: Overall
    audit: Audit
    forced: frozenset[str] = frozenset()
    """Ids of the episodes whose frames are all positive."""
    notes: tuple[str, ...] = ()
    """What a careful reader must know, a sentence each."""

    @property
    def complete(self) -> bool:
        """Whether every episode of the run was measured, or failed to be."""
        return len(self.episodes) >= self.planned

    @property
    def unlabelled(self) -> tuple[Kept, ...]:
        """Episodes without labels for all of their frames."""
        return tuple(kept for kept in self.episodes if kept.why_not is not None or not kept.labelled)

    def per_prefix(self, kept: Kept, column: str) -> NDArray[np.float64]:
        """(K,) one of the columns that are shares, at the scored frames; NaN where it is not defined."""
        return _per_prefix(kept, column, self.overall.anchors)

    def per_frame(self, kept: Kept, column: str) -> NDArray[np.float32]:
        """(T,) the same for every frame, as it is written."""
        return _per_frame(kept, column, self.overall.anchors, self.settings.causal)

    def frames(self, kept: Kept) -> dict[str, NDArray[Any]]:
        """The columns of frames.parquet for one episode, (T,) each; NaN where one is not defined."""
        chosen, overall = self.settings, self.overall
        count, times = kept.num_frames, kept.times()
        rows = np.arange(count, dtype=np.int64)

        def laid_out(values: NDArray[np.float64]) -> NDArray[np.float32]:
            return spread(values, kept.scored, _strict(times, count), causal=chosen.causal).astype(np.float32)

        undefined = np.full(kept.values.shape, np.nan)
        chosen_progress = self.per_frame(kept, chosen.column).astype(np.float64)
        advantage = self.advantages(kept, chosen_progress)
        gains = horizon_advantages(chosen_progress, chosen.chunk_size)
        threshold = overall.thresholds.get(kept.instruction, NAN)
        forced = kept.id in self.forced
        weights = np.exp((advantage - overall.weight_shift) / overall.beta) / overall.weight_mean
        if np.isnan(overall.beta) and not overall.waiting:  # advantages that do not vary: nothing to weigh
            weights = np.where(np.isnan(advantage), np.nan, 1.0)
        positive = np.where(np.isnan(advantage) | np.isnan(threshold), np.nan, advantage >= threshold)
        return {
            "frame_index": rows,
            "timestamp": times,
            "scored": np.isin(rows, kept.scored),
            "value": laid_out(kept.values if kept.unit != "percent" else undefined),
            "percent": laid_out(kept.values if kept.unit == "percent" else undefined),
            "probability": self.per_frame(kept, "probability"),
            "progress": self.per_frame(kept, "progress"),
            "progress_anchored": self.per_frame(kept, "progress_anchored"),
            "dense_reward": step_rewards(kept.values, kept.scored, count).astype(np.float32),
            "advantage": advantage.astype(np.float32),
            "weight_clip": clipped_weights(advantage).astype(np.float32),
            "weight_awr": weights.astype(np.float32),
            "weight_rabc": np.full(count, np.nan, dtype=np.float32)
            if overall.gains is None
            else rabc_weights(gains, overall.gains, overall.kappa),
            "positive": np.ones(count) if forced else positive,
        }

    def predicted(self, kept: Kept) -> bool | None:
        """Whether the score says that the episode succeeded; None without a score or a threshold."""
        if np.isnan(kept.real.score) or np.isnan(self.overall.success_threshold):
            return None
        return bool(kept.real.score >= self.overall.success_threshold)

    def facts(self, kept: Kept) -> Facts:
        """What the episode's chosen progress looks like, and why to look at it."""
        if not kept.labelled:
            empty = np.zeros(0)
            return look(kept, empty, empty, self.predicted(kept))
        begin = int(kept.scored[0]) if self.settings.causal else 0  # before it there is no value
        shown = self.per_frame(kept, self.settings.column).astype(np.float64)
        return look(kept, shown[begin:], kept.times()[begin:], self.predicted(kept))

    @cached_property
    def first_to_look_at(self) -> list[tuple[Kept, Facts]]:
        """Episodes that deserve a look, those with the weightiest reasons first."""
        found = [(kept, self.facts(kept)) for kept in self.episodes]
        return sorted([pair for pair in found if pair[1].reasons], key=lambda pair: -pair[1].weight)

    @cached_property
    def numbers(self) -> Mapping[str, int | None]:
        """What counts each episode, by id: the dataset's `episode_index`, or the place in the run of a dataset that
        has none. None where the dataset has one that is not known, because the episode's file cannot be read."""
        return _numbers(self.episodes)

    def advantages(self, kept: Kept, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """(T,) of progress per frame, rounded to float32: what is written is what thresholds are taken over."""
        longest = self.overall.longest.get(kept.instruction) if self.settings.step_cost else None
        if self.settings.step_cost and longest is None:
            return np.full(values.shape, np.nan)
        made = horizon_advantages(values, self.settings.horizon, longest=longest)
        return made.astype(np.float32).astype(np.float64)


def derive(
    stored: Stored,
    estimator: str,
    settings: LabelSettings | None = None,
    *,
    seed: int = 0,
    calibration_split: str | None = None,
) -> Labels:
    """One estimator's labels out of a run's folder.

    `seed`, `calibration_split`: what a success threshold is fitted on, see `evaluation.success.detect`. Raises
    ConfigError where the folder holds nothing of that estimator, or none of its curves has the chosen column.
    """
    chosen = settings or LabelSettings()
    notes = list(stored.notes)
    kept = _placed([keep(measured, stored.plan, estimator) for measured in stored.measured()], stored, notes)
    if not kept:
        raise ConfigError(f"{stored.path}: holds no measured episode yet")
    labelled = [one for one in kept if one.labelled]
    if not labelled:
        why = next((one.why_not for one in kept if one.why_not), "no curve")
        raise ConfigError(f"{stored.path}: none of {len(kept)} episodes has values of {estimator}; the first: {why}")
    pairs = [(one.real, one.frozen) for one in kept if one.frozen is not None]
    labels = Labels(
        estimator,
        chosen,
        stored.settings,
        tuple(kept),
        max(stored.planned, len(kept)),
        Overall(),
        audit(estimator, pairs),
        frozenset(_forced(kept, chosen.force_positive)),
    )
    if labels.complete:
        labels = replace(labels, overall=_overall(labels, labelled, seed, calibration_split, notes))
    else:
        missing = labels.planned - len(kept)
        notes.append(
            f"{missing} of {labels.planned} episodes are not measured yet; what is taken over the whole dataset "
            "(anchors, thresholds, weights) waits for them and is null"
        )
    _check_column(labels, labelled)
    return replace(labels, notes=tuple(dict.fromkeys(notes)))


def _overall(
    labels: Labels, labelled: list[Kept], seed: int, calibration_split: str | None, notes: list[str]
) -> Overall:
    """All that is taken over the whole dataset, in the order in which one needs the other."""
    chosen = labels.settings
    anchors = anchors_of([(one.instruction, float(one.values[0]), float(one.values[-1])) for one in labelled])
    notes += _anchor_notes(anchors)
    longest: dict[str, int] = {}
    for one in labelled:
        longest[one.instruction] = max(longest.get(one.instruction, 0), one.num_frames)
    ready = replace(labels, overall=Overall(anchors=anchors, longest=longest))
    advantages: dict[str, list[NDArray[np.float64]]] = {one.instruction: [] for one in labelled}
    unforced: dict[str, list[NDArray[np.float64]]] = {one.instruction: [] for one in labelled}
    gains = []
    for one in labelled:
        shown = ready.per_frame(one, chosen.column).astype(np.float64)
        advantage = ready.advantages(one, shown)
        advantages[one.instruction].append(advantage)
        if one.id not in labels.forced:
            unforced[one.instruction].append(advantage)
        gains.append(horizon_advantages(shown, chosen.chunk_size))
    over = gains_over(_joined(gains))
    suggested = suggested_kappa(over)
    everything = _joined(part for parts in advantages.values() for part in parts)
    weights = exponential_weights(everything, beta=chosen.beta, normalise=True)
    defined = everything[~np.isnan(everything)]
    shift = float(defined.max()) if defined.size else NAN
    mean = float(np.exp((defined - shift) / weights.beta).mean()) if defined.size else NAN
    varying = relative_spread(weights.values)
    usual = float(defined.std()) if defined.size else NAN
    if chosen.beta is not None and varying < HARDLY_DIFFERENT:
        notes.append(
            f"with --beta {chosen.beta:g} the weights exp(A / beta) hardly differ (spread {varying:.2g} around 1): "
            f"training with them is nearly plain cloning; the advantages' own spread is {usual:.2g}"
        )
    shared = positive_threshold(_joined(part for parts in unforced.values() for part in parts), chosen.positive_share)
    own = {text: positive_threshold(_joined(parts), chosen.positive_share) for text, parts in unforced.items()}
    threshold, success = _success(labels, seed, calibration_split)
    return Overall(
        anchors=anchors,
        longest=longest,
        beta=weights.beta,
        weight_shift=shift,
        weight_mean=mean,
        weight_spread=varying,
        advantage_std=usual,
        gains=over,
        kappa=chosen.kappa if chosen.kappa is not None else suggested if suggested is not None else LEROBOT_KAPPA,
        kappa_suggested=suggested,
        thresholds=own if chosen.positive_over == "task" else dict.fromkeys(own, shared),
        success_threshold=threshold,
        success=success,
    )


def _success(labels: Labels, seed: int, calibration_split: str | None) -> tuple[float, Success | None]:
    """The threshold, given or fitted, and how well scores tell the dataset's labels."""
    given = labels.settings.success_threshold
    found = detect([one.real for one in labels.episodes], calibration_split=calibration_split, seed=seed)
    return given if given is not None else found.threshold if found is not None else NAN, found


def _per_prefix(kept: Kept, column: str, anchors: Mapping[str, Anchor]) -> NDArray[np.float64]:
    if column == "progress":
        return progress(kept.values, constant="nan")
    if column == "probability" and kept.probability is not None:
        return kept.probability
    if column == "percent" and kept.unit == "percent":
        return kept.values / 100.0
    if column == "progress_anchored" and kept.instruction in anchors:
        return anchors[kept.instruction].progress(kept.values)
    return np.full(kept.values.shape, np.nan)


def _per_frame(kept: Kept, column: str, anchors: Mapping[str, Anchor], causal: bool) -> NDArray[np.float32]:
    values = _per_prefix(kept, column, anchors)
    return spread(values, kept.scored, _strict(kept.times(), kept.num_frames), causal=causal).astype(np.float32)


def _strict(times: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Times to draw lines over; frame numbers where the times are not known."""
    return np.arange(count, dtype=np.float64) if np.isnan(times).any() else times


def _placed(kept: list[Kept], stored: Stored, notes: list[str]) -> list[Kept]:
    """The same with their places, in the dataset's order; an older run kept none: then the dataset is asked."""
    dataset = stored.settings.get("dataset")
    uri = dataset.get("dataset") if isinstance(dataset, Mapping) else None
    if isinstance(uri, str) and uri.startswith("lerobot:") and any(one.place is None for one in kept):
        try:
            there = stored.episodes()
        except TopRewardError as error:
            notes.append(f"where the episodes' frames lie in {uri} is not known ({' '.join(str(error).split())})")
        else:
            kept = [
                replace(one, place=place(there[one.id])) if one.place is None and one.id in there else one
                for one in kept
            ]
    for what in ([one.id for one in kept], [one.place["episode_index"] for one in kept if one.place]):
        if twice := [str(name) for name, times in Counter(what).items() if times > 1]:
            raise ConfigError(f"{stored.path}: two files in curves/ are of the same episode, {twice[0]}; delete one")
    return sorted(kept, key=lambda one: (0, one.place["episode_index"]) if one.place else (1, 0))


def _numbers(episodes: Iterable[Kept]) -> dict[str, int | None]:
    """See `Labels.numbers`."""
    known = list(episodes)
    counted = any(one.place is not None for one in known)
    return {
        one.id: one.place["episode_index"] if one.place else None if counted else position
        for position, one in enumerate(known)
    }


def _forced(episodes: Iterable[Kept], wanted: str | None) -> Iterator[str]:
    """Ids of the episodes that are named by their number, as `--episodes` names them."""
    if wanted is None:
        return
    from topreward.datasets.selection import parse_episodes

    numbers = {number: name for name, number in _numbers(episodes).items() if number is not None}
    for number in parse_episodes(wanted, max(numbers) + 1):
        if number in numbers:
            yield numbers[number]


def _anchor_notes(anchors: Mapping[str, Anchor]) -> list[str]:
    """What to say of the anchors: those without a scale."""
    bad = [text for text, anchor in anchors.items() if not anchor.defined]
    if not bad:
        return []
    first = anchors[bad[0]]
    which = "over all episodes" if first.over == "all" else f"of the instruction {bad[0]!r}"
    return [
        f"anchored progress {which} is undefined: the episodes' ends ({first.high:.4g}) do not lie above their "
        f"beginnings ({first.low:.4g})" + (f"; so it is of {len(bad)} instructions" if len(bad) > 1 else "")
    ]


def _check_column(labels: Labels, labelled: list[Kept]) -> None:
    column = labels.settings.column
    if column in ("probability", "percent") and all(np.isnan(labels.per_prefix(one, column)).all() for one in labelled):
        raise ConfigError(f"{labels.estimator} reads no {column}; give another --column, such as progress_anchored")


def _joined(parts: Iterable[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.concatenate([np.zeros(0), *parts])
