"""One door to every dataset: a uri goes in, a lazy sequence of Episodes comes out.

Knows which kind of dataset a scheme means and how episodes are chosen; how each kind is read is the business
of the modules beside it, imported only when one is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any

from topreward.datasets.messages import short
from topreward.datasets.selection import parse_episodes, random_subset
from topreward.datasets.source import Dataset, Source
from topreward.errors import DatasetError, nearest

# Scheme → the options that mean something there. `episodes`, `subset` and `seed` mean something everywhere.
SCHEMES: dict[str, tuple[str, ...]] = {
    "lerobot": ("camera", "revision", "instruction", "skip_unlabelled"),
    "folder": ("camera", "instruction", "root"),
    "hdf5": ("camera", "instruction", "instruction_attribute", "fps", "flip_vertical"),
    "demo": (),
}

_KINDS: dict[str, Any] = {
    **dict.fromkeys(("revision", "instruction", "instruction_attribute"), str),
    **dict.fromkeys(("flip_vertical", "skip_unlabelled"), bool),
    "root": str | os.PathLike,
    "seed": Integral,
}


def open_dataset(
    uri: str,
    *,
    camera: str | Sequence[str] | None = None,
    episodes: str | Iterable[int] | None = None,
    subset: int | None = None,
    seed: int = 0,
    revision: str | None = None,
    instruction: str | None = None,
    instruction_attribute: str | None = None,
    fps: float | None = None,
    flip_vertical: bool | None = None,
    root: str | None = None,
    skip_unlabelled: bool | None = None,
) -> Dataset:
    """Open a dataset. No frame is decoded, and on the hub no video fetched, before an episode's `clip()`.

    `uri`: `lerobot:<folder or hub id>`, `folder:<folder or listing>`, `hdf5:<file or folder>`, or
    `demo:?count=50&seed=3`.
    `camera`: a name (the last part of a LeRobot key will do), None for the first; a list of names puts the views
    side by side, from left to right, enlarged to the tallest one's height where they differ.
    `episodes`: "0:50" (50 not included), "3,7,9" or integers; LeRobot's `episode_index`, elsewhere the position.
    `subset`: that many of them, drawn by `seed`; the same ones on every machine.
    `revision`: branch, tag or commit of a hub dataset.
    `instruction`: replaces what the dataset says. `instruction_attribute`, `fps` (frames/s), `flip_vertical`: see
    `hdf5.open_hdf5`. `root`: the folder that a listing's paths may not leave, see `listing.read_listing`.
    `skip_unlabelled`: leave out LeRobot episodes without an instruction, before `subset` is drawn, and name them in
    `Dataset.skipped`; without it, such an episode is an error.

    Raises DatasetError where the dataset, or an episode that was chosen, contradicts itself in its metadata.
    What only the data can tell is raised by the episode's `clip()`, so that the other episodes go on.
    """
    if not isinstance(uri, str):
        raise DatasetError(f"the dataset is a {type(uri).__name__}, want a text such as folder:<listing.csv>")
    scheme, colon, location = uri.partition(":")
    if not colon or scheme not in SCHEMES:
        known = ", ".join(f"{name}:" for name in SCHEMES)
        said = f"the scheme {scheme!r}{nearest(scheme, SCHEMES)}" if colon else "no scheme"
        raise DatasetError(f"{uri!r} has {said}; a dataset is named by one of {known}")
    options = {
        "camera": camera,
        "revision": revision,
        "instruction": instruction,
        "instruction_attribute": instruction_attribute,
        "fps": fps,
        "flip_vertical": flip_vertical,
        "root": root,
        "skip_unlabelled": skip_unlabelled,
    }
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if name not in SCHEMES[scheme]:
            raise DatasetError(f"{uri}: {name}= means nothing for {scheme}: datasets")
    _check_options(uri, given, seed)
    if instruction is not None and not instruction.strip():
        raise DatasetError(f"{uri}: instruction is empty")
    if given.pop("skip_unlabelled", False) and instruction is not None:
        raise DatasetError(f"{uri}: no episode is unlabelled with instruction={instruction!r}")
    source = _open_source(scheme, location, given)
    positions, skipped = _choose(source, episodes, subset, seed, skip_unlabelled=bool(skip_unlabelled))
    return Dataset(
        source.uri,
        [source.episode(position) for position in positions],
        cameras=source.cameras,
        revision=source.revision,
        skipped=tuple(source.ids[position] for position in skipped),
    )


def _check_options(uri: str, given: Mapping[str, Any], seed: Any) -> None:
    """Raise DatasetError for an option of another kind than is wanted. A rate is held by whoever uses it."""
    for name, value in {**given, "seed": seed}.items():
        if name == "camera":
            fits = isinstance(value, str) or (
                isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)
            )
        else:
            fits = isinstance(value, _KINDS.get(name, object)) and (name != "seed" or not isinstance(value, bool))
        if not fits:
            raise DatasetError(f"{uri}: {name} is {short(value)}, which is no {name} a dataset could have")


def _choose(
    source: Source, episodes: str | Iterable[int] | None, subset: int | None, seed: int, *, skip_unlabelled: bool
) -> tuple[list[int], list[int]]:
    """Positions of the chosen episodes, and of those left out for want of an instruction."""
    ids = source.ids
    positions = list(range(len(ids))) if episodes is None else parse_episodes(episodes, len(ids))
    skipped = [position for position in positions if skip_unlabelled and not source.has_instruction(position)]
    left_out = set(skipped)
    positions = [position for position in positions if position not in left_out]
    if not positions:
        raise DatasetError(f"{source.uri}: there are no episodes" + (" with an instruction" if skipped else ""))
    if subset is not None:
        drawn = random_subset([ids[position] for position in positions], subset, seed)
        positions = [positions[pick] for pick in drawn]
    return positions, skipped


def _open_source(scheme: str, location: str, options: dict[str, Any]) -> Source:
    if scheme == "lerobot":
        from topreward.datasets.lerobot import open_lerobot

        return open_lerobot(location, **options)
    if scheme == "folder":
        from topreward.datasets.folder import open_folder

        return open_folder(location, **options)
    if scheme == "hdf5":
        from topreward.datasets.hdf5 import open_hdf5

        return open_hdf5(location, **options)
    from topreward.datasets.demo import open_demo

    return open_demo(location, **options)
