"""The words of a command line → episodes: what each kind of dataset takes, and that nothing else is touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from places import DATA
from topreward.cli.eval import EvalOptions
from topreward.datasets import lerobot, open_dataset
from topreward.errors import ConfigError, DatasetError
from topreward.jobs.inputs import Inputs


@pytest.fixture
def libero(tmp_path: Path) -> Path:
    """Frames whose first row is dark and last row bright, without an instruction."""
    with h5py.File(tmp_path / "d.hdf5", "w") as file:
        for i in range(4):
            frames = np.zeros((5, 4, 6, 3), np.uint8)
            frames[:, -1] = 200
            file[f"data/demo_{i}/obs/front"] = frames
            file[f"data/demo_{i}"].attrs["told"] = f"task {i}"
    return tmp_path / "d.hdf5"


def test_hdf5_options_reach_the_dataset(libero: Path) -> None:
    options = EvalOptions(dataset=f"hdf5:{libero}", flip_vertical=True, fps=5.0, instruction_attribute="told")
    episodes = options.inputs()()
    assert [e.instruction for e in episodes] == [f"task {i}" for i in range(4)]
    clip = episodes[0].clip()
    assert clip.fps == 5
    assert clip.frames([0])[0, :, 0, 0].tolist() == [200, 0, 0, 0]
    plain = EvalOptions(dataset=f"hdf5:{libero}", instruction=("do it",)).inputs()()
    assert {e.instruction for e in plain} == {"do it"}
    assert plain[0].clip().frames([0])[0, :, 0, 0].tolist() == [0, 0, 0, 200]
    settings = json.loads(json.dumps(options.inputs().settings()))
    assert (settings["flip_vertical"], settings["fps"], settings["instruction_attribute"]) == (True, 5.0, "told")


@pytest.mark.parametrize("named", [True, False])
def test_a_listing_may_name_videos_elsewhere_where_a_root_is_given(tmp_path: Path, named: bool) -> None:
    here = tmp_path / "lists"
    here.mkdir()
    listing = here / "episodes.csv"
    listing.write_text("path\n../v0.mp4\n")

    def inputs(**options: Any) -> Inputs:
        place = {"dataset": f"folder:{listing}"} if named else {"videos": (listing,)}
        return Inputs(**place, instruction=("do it",), **options)

    with pytest.raises(DatasetError, match="leaves the folder"):
        inputs()()
    episodes = inputs(root=str(tmp_path))()
    assert [(e.id, e.instruction) for e in episodes] == [("../v0.mp4", "do it")]


def test_folders_of_frames_take_a_frame_rate(tmp_path: Path) -> None:
    from PIL import Image

    for i in range(3):
        Image.new("RGB", (64, 48), (i, i, i)).save(tmp_path / f"{i}.png")
    assert Inputs((tmp_path,), ("do it",), fps=4.0)()[0].clip().fps == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flip_vertical": True}, "flip_vertical= means nothing for folder"),
        ({"instruction_attribute": "a"}, "instruction_attribute= means nothing for folder"),
        ({"fps": 5.0}, "fps= means nothing for folder"),
    ],
)
def test_what_a_dataset_does_not_take_is_an_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        Inputs(dataset="folder:x", **options)()
    if "fps" not in options:
        with pytest.raises(ConfigError, match=r"without --dataset, --.* means nothing"):
            Inputs((Path("a.mp4"),), ("do it",), **options)()


FIXTURES = sorted(p.parents[1] for p in DATA.rglob("meta/info.json"))


def test_episodes_that_are_not_drawn_are_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    episode = lerobot.LeRobotSource.episode

    def counting(self: lerobot.LeRobotSource, position: int) -> Any:
        made.append(position)
        return episode(self, position)

    uri = f"lerobot:{FIXTURES[0]}"
    everything = open_dataset(uri)
    assert len(everything) > 1
    monkeypatch.setattr(lerobot.LeRobotSource, "episode", counting)
    drawn = Inputs(dataset=uri, subset=1, seed=3)()
    assert len(drawn) == len(made) == 1
    # the same draw as after a filter, which has to look at all of them
    split = everything[0].split
    if split is not None and all(e.split == split for e in everything):
        assert [e.id for e in Inputs(dataset=uri, subset=1, seed=3, split=split)()] == [e.id for e in drawn]


def test_a_files_name_may_be_no_text() -> None:
    names = [Path("caf\udce9.mp4"), Path("café.mp4")]
    assert [e.id for e in Inputs(tuple(names), ("do it",))()] == ["caf\\xe9.mp4", "café.mp4"]


def test_examples_are_not_evaluated(tmp_path: Path) -> None:
    listing = tmp_path / "episodes.csv"
    rows = [f"v{i}.mp4,{'train' if i % 2 else 'test'}" for i in range(6)]
    listing.write_text("\n".join(["path,split", *rows]))
    uri = f"folder:{listing}"

    def ids(**options: Any) -> list[str]:
        return [e.id for e in EvalOptions(dataset=uri, instruction=("do it",), **options).inputs()()]

    shown = EvalOptions(dataset=uri, instruction=("do it",), gvl_examples="1,4", subset=2, split="test").inputs()
    assert [e.id for e in shown.open_examples()] == ["v1.mp4", "v4.mp4"]
    assert ids(gvl_examples="1,4") == ["v0.mp4", "v2.mp4", "v3.mp4", "v5.mp4"]
    assert ids(gvl_examples="1,4", split="test") == ["v0.mp4", "v2.mp4"]
    assert ids(gvl_examples="1,4", episodes="0:3") == ["v0.mp4", "v2.mp4"]
    assert len(ids(gvl_examples="1,4", subset=4)) == 4
    for wrong, message in (("0:6", "none is left to evaluate"), ("7", "asks for episode 7")):
        with pytest.raises(DatasetError, match=message):
            ids(gvl_examples=wrong)
    assert EvalOptions(dataset=uri).inputs().open_examples() == ()
