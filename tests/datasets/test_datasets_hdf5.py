"""robomimic, LIBERO and RoboCasa files, written here in their layouts."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from topreward.datasets import hdf5_layout, open_dataset
from topreward.errors import DatasetError, TopRewardError, VideoError

LENGTHS = (4, 3, 5)


def picture(demo: int, frame: int, camera: int, size: tuple[int, int]) -> np.ndarray:
    """A picture that says what it is, brighter towards the bottom."""
    image = np.zeros((*size, 3), dtype=np.uint8)
    image[..., 0] = np.arange(size[0])[:, None]
    image[..., 1] = 10 * frame
    image[..., 2] = 10 * demo + 120 * camera
    return image


def write_demos(
    path: Path,
    *,
    lengths: tuple[int, ...] = LENGTHS,
    cameras: tuple[str, ...] = ("agentview_rgb", "eye_in_hand_rgb"),
    attributes: dict[str, Any] | None = None,
    demo_attributes: dict[str, Any] | None = None,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs.update(attributes if attributes is not None else {"problem_info": libero("open the drawer")})
        for demo, length in enumerate(lengths):
            group = data.create_group(f"demo_{demo}")
            group.attrs.update(demo_attributes or {})
            group["actions"] = np.zeros((length, 7))
            group["obs/gripper_states"] = np.zeros((length, 2))
            for index, camera in enumerate(cameras):
                frames = [picture(demo, frame, index, (16, 12)) for frame in range(length)]
                array = np.stack(frames) if frames else np.zeros((0, 16, 12, 3), np.uint8)
                group["obs"].create_dataset(camera, data=array, compression="gzip", chunks=length > 0 or None)
    return path


def libero(instruction: Any) -> str:
    return json.dumps({"problem_name": "libero", "language_instruction": instruction})


def test_libero(tmp_path: Path) -> None:
    path = write_demos(tmp_path / "drawer.hdf5", lengths=(2,) * 11)
    dataset = open_dataset(f"hdf5:{path}")
    assert dataset.cameras == ("agentview_rgb", "eye_in_hand_rgb")
    assert [episode.id for episode in dataset][:3] == ["drawer/demo_0", "drawer/demo_1", "drawer/demo_2"]
    assert dataset[10].id == "drawer/demo_10"
    episode = dataset[2]
    assert (episode.instruction, episode.camera, episode.success) == ("open the drawer", "agentview_rgb", None)
    assert episode.extra == {"dataset_uri": f"hdf5:{path}", "episode_index": 2, "length": 2, "fps": 20.0}
    clip = episode.clip()
    assert (clip.num_frames, clip.height, clip.width, clip.fps) == (2, 16, 12, 20)
    np.testing.assert_array_equal(clip.frames([1, 0]), [picture(2, 1, 0, (16, 12)), picture(2, 0, 0, (16, 12))])
    np.testing.assert_allclose(clip.pts_seconds, [0, 0.05])


def test_cameras_flip_and_frame_rate(tmp_path: Path) -> None:
    uri = f"hdf5:{write_demos(tmp_path / 'drawer.hdf5')}"
    wrist = open_dataset(uri, camera="eye_in_hand_rgb", fps=10)[1].clip()
    assert wrist.fps == 10
    np.testing.assert_array_equal(wrist.frames([2])[0], picture(1, 2, 1, (16, 12)))
    flipped = open_dataset(uri, flip_vertical=True)[1].clip()
    np.testing.assert_array_equal(flipped.frames([2])[0], picture(1, 2, 0, (16, 12))[::-1])
    both = open_dataset(uri, camera=["eye_in_hand_rgb", "agentview_rgb"])[1].clip()
    expected = np.concatenate([picture(1, 2, camera, (16, 12)) for camera in (1, 0)], axis=1)
    np.testing.assert_array_equal(both.frames([2])[0], expected)
    with pytest.raises(
        DatasetError, match="'front' is not in this dataset; the cameras are agentview_rgb, eye_in_hand"
    ):
        open_dataset(uri, camera="front")
    with pytest.raises(DatasetError, match="fps: 0 frames/s"):
        open_dataset(uri, fps=0)


@pytest.mark.parametrize("shape", [(4, 8, 6), (4, 3, 8, 6), (4, 8, 6, 4)])
def test_a_camera_that_holds_no_pictures_says_what_it_holds(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = write_demos(tmp_path / "d.hdf5", lengths=(4, 4))
    with h5py.File(path, "r+") as file:
        for demo in ("demo_0", "demo_1"):
            file[f"data/{demo}/obs/depth"] = np.zeros(shape, np.float32)
    with pytest.raises(DatasetError, match="camera 'depth' holds no pictures: obs/depth is float32") as caught:
        open_dataset(f"hdf5:{path}", camera="depth")
    assert f"{shape}, want uint8 (T, H, W, 3)" in str(caught.value)


def test_the_default_camera_is_one_for_all_demonstrations(tmp_path: Path) -> None:
    path = write_demos(tmp_path / "drawer.hdf5")
    with h5py.File(path, "a") as file:
        del file["data/demo_1/obs/agentview_rgb"]
        file["data/demo_2/obs/a_first_view"] = file["data/demo_2/obs/agentview_rgb"][:] // 2
    with pytest.raises(DatasetError, match=r"data/demo_1: camera 'agentview_rgb' is not .* are eye_in_hand_rgb$"):
        open_dataset(f"hdf5:{path}")
    assert [one.camera for one in open_dataset(f"hdf5:{path}", episodes="0,2")] == ["agentview_rgb"] * 2


def test_the_file_may_state_its_frame_rate(tmp_path: Path) -> None:
    def told(value: Any) -> str:
        env = json.dumps({"env_name": "Lift", "env_kwargs": {"control_freq": value}})
        attributes = {"env_args": env, "problem_info": libero("lift")}
        return f"hdf5:{write_demos(tmp_path / 'lift.hdf5', attributes=attributes)}"

    assert open_dataset(told(15))[0].clip().fps == 15
    assert open_dataset(told(15), fps=30)[0].clip().fps == 30
    with pytest.raises(DatasetError, match="control_freq of -1"):
        open_dataset(told(-1))


@pytest.mark.parametrize(
    ("attributes", "demo_attributes", "attribute", "instruction"),
    [
        ({"problem_info": libero('"open the drawer"')}, {}, None, "open the drawer"),
        ({"problem_info": libero(list("open it"))}, {}, None, "open it"),
        ({}, {"ep_meta": json.dumps({"lang": "close the door"})}, None, "close the door"),
        ({"task": "stack"}, {}, "task", "stack"),
        ({"task": "stack"}, {"task": np.bytes_(b"unstack")}, "task", "unstack"),
        ({"meta": json.dumps({"a": {"b": "deep"}})}, {}, "meta.a.b", "deep"),
        ({"meta.a": "dotted"}, {}, "meta.a", "dotted"),
        ({"problem_info": libero("x")}, {"lang": np.array("scalar", dtype=h5py.string_dtype())}, "lang", "scalar"),
    ],
)
def test_where_the_instruction_stands(
    tmp_path: Path, attributes: dict[str, Any], demo_attributes: dict[str, Any], attribute: str | None, instruction: str
) -> None:
    path = write_demos(tmp_path / "d.hdf5", attributes=attributes, demo_attributes=demo_attributes)
    assert open_dataset(f"hdf5:{path}", instruction_attribute=attribute)[1].instruction == instruction
    assert open_dataset(f"hdf5:{path}", instruction="wave")[1].instruction == "wave"


def test_no_instruction_says_what_there_is(tmp_path: Path) -> None:
    path = write_demos(tmp_path / "d.hdf5", attributes={"env_args": "{}", "total": 3})
    with pytest.raises(
        DatasetError, match=r"data/demo_0: no instruction in problem_info.*attributes are env_args, total"
    ):
        open_dataset(f"hdf5:{path}")
    with pytest.raises(DatasetError, match="no instruction in lang"):
        open_dataset(f"hdf5:{path}", instruction_attribute="lang")
    with pytest.raises(DatasetError, match="the attribute total is 3, want a text"):
        open_dataset(f"hdf5:{path}", instruction_attribute="total")
    with pytest.raises(DatasetError, match="problem_info is not JSON"):
        open_dataset(f"hdf5:{write_demos(tmp_path / 'e.hdf5', attributes={'problem_info': '{'})}")


def test_a_folder_of_files_is_one_dataset(tmp_path: Path) -> None:
    write_demos(tmp_path / "b/second.h5", lengths=(3,), attributes={"problem_info": libero("two")})
    write_demos(tmp_path / "a.hdf5", lengths=(2, 2), attributes={"problem_info": libero("one")})
    (tmp_path / "notes.txt").write_text("not data")
    dataset = open_dataset(f"hdf5:{tmp_path}")
    assert [(episode.id, episode.instruction) for episode in dataset] == [
        ("a/demo_0", "one"),
        ("a/demo_1", "one"),
        ("b/second/demo_0", "two"),
    ]
    assert dataset[2].clip().num_frames == 3
    write_demos(tmp_path / "a.h5")
    with pytest.raises(DatasetError, match="differ only in their suffix"):
        open_dataset(f"hdf5:{tmp_path}")


def test_frames_are_read_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_demos(tmp_path / "d.hdf5")
    read: list[list[int]] = []
    real = hdf5_layout.read_frames
    monkeypatch.setattr(
        hdf5_layout, "read_frames", lambda demo, camera, i: read.append(i.tolist()) or real(demo, camera, i)
    )
    clip = pickle.loads(pickle.dumps(open_dataset(f"hdf5:{path}")[2].load))()
    assert read == []
    clip.frames([4, 1])
    assert read == [[1, 4]]
    path.unlink()
    with pytest.raises(DatasetError, match=r"d\.hdf5: there is no such file"):
        clip.frames([0])


def test_defects(tmp_path: Path) -> None:
    def opened(name: str, change: Any = None, camera: Any = None, **options: Any) -> None:
        path = write_demos(tmp_path / name, **options)
        if change is not None:
            with h5py.File(path, "a") as file:
                change(file)
        open_dataset(f"hdf5:{path}", camera=camera)

    with pytest.raises(DatasetError, match="data/demo_1: want at least one frame"):
        opened("a.hdf5", lengths=(2, 0))
    with pytest.raises(DatasetError, match="there are no demonstrations"):
        opened("b.hdf5", lengths=())
    with pytest.raises(DatasetError, match=r"holds gripper_states, but no .T, H, W, 3. uint8 pictures"):
        opened("c.hdf5", cameras=())
    with pytest.raises(DatasetError, match="there is no group 'data'"):
        opened("d.hdf5", lambda file: file.move("data", "episodes"))
    with pytest.raises(DatasetError, match="demo_2: there is no group 'obs'"):
        opened("e.hdf5", lambda file: file.move("data/demo_2/obs", "data/demo_2/views"))

    def without_a_frame(file: h5py.File) -> None:
        frames = file["data/demo_2/obs/eye_in_hand_rgb"][:4]
        del file["data/demo_2/obs/eye_in_hand_rgb"]
        file["data/demo_2/obs/eye_in_hand_rgb"] = frames

    def without_a_camera(file: h5py.File) -> None:
        del file["data/demo_2/obs/eye_in_hand_rgb"]

    both = ["agentview_rgb", "eye_in_hand_rgb"]
    with pytest.raises(DatasetError, match=r"demo_2: want .* of each camera, got agentview_rgb 5, eye_in_hand_rgb 4"):
        opened("f.hdf5", without_a_frame, camera=both)
    with pytest.raises(DatasetError, match=r"demo_2: camera 'eye_in_hand_rgb' is not .*cameras are agentview_rgb$"):
        opened("g.hdf5", without_a_camera, camera=both)

    def endless(file: h5py.File) -> None:
        del file["data/demo_2/obs/agentview_rgb"]
        file.create_dataset("data/demo_2/obs/agentview_rgb", shape=(10**12, 4, 4, 3), chunks=(1, 4, 4, 3), dtype="u1")

    with pytest.raises(DatasetError, match=r"demo_2/obs/agentview_rgb: 1e\+12 frames"):
        opened("h.hdf5", endless)
    (tmp_path / "text.hdf5").write_text("no HDF5")
    with pytest.raises(DatasetError, match=r"text\.hdf5: cannot be read as HDF5"):
        open_dataset(f"hdf5:{tmp_path / 'text.hdf5'}")
    with pytest.raises(DatasetError, match="no file or folder"):
        open_dataset("hdf5:/no/such/place")


@pytest.mark.parametrize("signature", [b"SNOD", b"HEAP", b"TREE"])
def test_damage_is_an_error_of_ours(tmp_path: Path, signature: bytes) -> None:
    path = write_demos(tmp_path / "d.hdf5", lengths=(2,))
    whole = path.read_bytes()
    assert signature in whole
    for damaged in (whole.replace(signature, b"XXXX"), whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(TopRewardError, match=r"d\.hdf5.*(cannot be read|no group)"):
            open_dataset(f"hdf5:{path}")[0].clip().frames([0, 1])


def test_nothing_is_read_from_another_file(tmp_path: Path) -> None:
    secret = write_demos(tmp_path / "secret" / "s.hdf5")
    path = write_demos(tmp_path / "d" / "d.hdf5")
    camera = "data/demo_0/obs/agentview_rgb"

    def replaced(make: Any) -> str:
        with h5py.File(path, "a") as file:
            del file[camera]
            make(file)
        return f"hdf5:{path}"

    def virtual(file: h5py.File) -> None:
        layout = h5py.VirtualLayout(shape=(4, 16, 12, 3), dtype="u1")
        layout[:] = h5py.VirtualSource(str(secret), camera, shape=(4, 16, 12, 3))
        file.create_virtual_dataset(camera, layout)

    def external(file: h5py.File) -> None:
        file.create_dataset(camera, shape=(4, 16, 12, 3), dtype="u1", external=[(str(secret), 0, 4 * 16 * 12 * 3)])

    def linked(file: h5py.File) -> None:
        file[camera] = h5py.ExternalLink(str(secret), camera)

    def soft(target: str) -> Any:
        return lambda file: file.__setitem__(camera, h5py.SoftLink(target))

    with pytest.raises(DatasetError, match="agentview_rgb keeps its values in another file"):
        open_dataset(replaced(virtual))
    with pytest.raises(DatasetError, match="agentview_rgb keeps its values in another file"):
        open_dataset(replaced(external))
    with pytest.raises(DatasetError, match="agentview_rgb is a link into another file"):
        open_dataset(replaced(linked))
    with h5py.File(path, "a") as file:
        file["aside"] = h5py.ExternalLink(str(secret), camera)
    with pytest.raises(DatasetError, match="agentview_rgb is a link to /aside"):
        open_dataset(replaced(soft("/aside")))
    with pytest.raises(DatasetError, match="agentview_rgb is a link to no/where"):
        open_dataset(replaced(soft("no/where")))
    for place in ("data", "data/demo_0", "data/demo_0/obs"):
        with h5py.File(path, "a") as file:
            del file[place]
            file["elsewhere"] = h5py.ExternalLink(str(secret), place)
            file[place] = h5py.SoftLink("/elsewhere")
        with pytest.raises(DatasetError, match=f"{place.split('/')[-1]} is a link to /elsewhere"):
            open_dataset(f"hdf5:{path}")
        write_demos(path)
    (tmp_path / "d" / "e.hdf5").symlink_to(secret)
    with pytest.raises(DatasetError, match="outside the dataset's folder"):
        open_dataset(f"hdf5:{tmp_path / 'd'}")


def test_a_file_that_changed_since(tmp_path: Path) -> None:
    path = write_demos(tmp_path / "d.hdf5")
    episode = open_dataset(f"hdf5:{path}")[2]
    clip = episode.clip()
    write_demos(path, lengths=(4, 3, 2))
    with pytest.raises(VideoError, match="demo_2/obs/agentview_rgb: frames cannot be read"):
        clip.frames([4])
    write_demos(path, lengths=(4, 3))
    with pytest.raises(DatasetError, match="data/demo_2: there is no such group"):
        episode.clip()
