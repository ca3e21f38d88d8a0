"""Listings of videos: what a row may say, and the line that every mistake is blamed on."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from topreward.datasets import open_dataset, read_listing
from topreward.errors import DatasetError, VideoError

HEADER = "path,instruction,success,split,id,fps,camera,operator\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a video of 5 frames, and one of 12 images whose names are not in their order as text."""
    with av.open(str(tmp_path / "cup.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for value in range(5):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 * value, dtype=np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (tmp_path / "frames").mkdir()
    for value in range(12):
        Image.new("RGB", (8, 6), (value, 0, 0)).save(tmp_path / f"frames/frame_{value}.png")
    return tmp_path


def write(folder: Path, text: str, name: str = "episodes.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_csv(folder: Path) -> None:
    listing = write(
        folder,
        HEADER
        + 'cup.mp4,"pick up the cup, gently",true,train,one,,top,Ana\n'
        + "frames,open the drawer,0,test,,10,wrist,Bo\n"
        + "cup.mp4,pick up the pot,,,three,,,\n",
    )
    for uri in (f"folder:{folder}", f"folder:{listing}"):
        one, two, three = dataset = open_dataset(uri)
        assert dataset.cameras == ("top", "wrist")
        assert [one.id, two.id, three.id] == ["one", "frames", "three"]
        assert [one.success, two.success, three.success] == [True, False, None]
        assert [one.split, two.split, three.split] == ["train", "test", None]
        assert [one.camera, two.camera, three.camera] == ["top", "wrist", None]
        assert one.instruction == "pick up the cup, gently"
        assert one.extra == {"dataset_uri": f"folder:{listing}", "operator": "Ana"}
    clip = one.clip()
    assert (clip.num_frames, clip.height, clip.width) == (5, 48, 64)
    images = two.clip()
    assert (images.num_frames, images.fps) == (12, 10)
    assert images.frames(np.arange(12))[:, 0, 0, 0].tolist() == list(range(12))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(two.load))().frames([3]), images.frames([3]))


def test_jsonl_says_the_same(folder: Path) -> None:
    rows = [
        {"path": "cup.mp4", "instruction": "pick up the cup", "success": True, "id": 7, "tags": ["a"]},
        {"path": "frames", "instruction": "open the drawer", "success": None, "fps": 10},
    ]
    listing = write(folder, "\n" + "\n\n".join(json.dumps(row) for row in rows) + "\n", "episodes.jsonl")
    one, two = read_listing(listing)
    assert (one.id, one.success, one.extra["tags"]) == ("7", True, ["a"])
    assert (two.id, two.success, two.clip().fps) == ("frames", None, 10)


def test_spreadsheets_put_a_byte_order_mark(folder: Path) -> None:
    (folder / "list.csv").write_text("path,instruction\r\ncup.mp4,go\r\n", encoding="utf-8-sig")
    assert open_dataset(f"folder:{folder}")[0].instruction == "go"


def test_the_instruction_can_come_from_elsewhere(folder: Path) -> None:
    listing = write(folder, "path\ncup.mp4\n")
    assert read_listing(listing, instruction="wave")[0].instruction == "wave"
    assert open_dataset(f"folder:{listing}", instruction="wave")[0].instruction == "wave"
    with pytest.raises(DatasetError, match=r"episodes\.csv, line 2: instruction is missing"):
        read_listing(listing)


def test_one_camera_of_a_listing(folder: Path) -> None:
    write(folder, "path,instruction,camera\ncup.mp4,go,top\nframes,go,wrist\n")
    assert [episode.id for episode in open_dataset(f"folder:{folder}", camera="wrist")] == ["frames"]
    with pytest.raises(DatasetError, match="no row has the camera 'left'; the cameras are top, wrist"):
        open_dataset(f"folder:{folder}", camera="left")
    with pytest.raises(DatasetError, match="cannot be joined"):
        open_dataset(f"folder:{folder}", camera=["top", "wrist"])


BAD_CSV = [
    ("", "line 1: the column 'path' is missing"),
    ("instruction\ngo\n", "line 1: the column 'path' is missing; there are instruction"),
    ("Path,instruction\na,b\n", "line 1: unknown column 'Path' .did you mean 'path'"),
    ("path,instruction,sucess\na,b,1\n", "line 1: unknown column 'sucess' .did you mean 'success'"),
    ("path,instruction,path\na,b,c\n", "line 1: the column 'path' appears more than once"),
    ("path,instruction\n", "lists no episodes"),
    ("path,instruction\na,b\n\na,b,c\n", "line 4: 3 fields, the header names 2"),
    ("path,instruction\na\n", "line 2: 1 fields, the header names 2"),
    ("path,instruction\n,go\n", "line 2: path is missing"),
    ("path,instruction\na, \n", "line 2: instruction is missing"),
    ('path,instruction\na,"b\n', "line 2: unexpected end of data"),
    ("path,instruction,success\na,b,maybe\n", "line 2: success is 'maybe', want one of true"),
    ("path,instruction,fps\na,b,fast\n", "line 2: fps is 'fast'"),
    ("path,instruction,fps\na,b,nan\n", "line 2: fps is 'nan'"),
    ("path,instruction,fps\na,b,-1\n", "line 2: fps is '-1'"),
    ('path,instruction\n"a","two\nlines"\na,b\n', "line 4: the id 'a' is that of line 3 too"),
    ("path,instruction\n../up.mp4,b\n", r"line 2: path '\.\./up.mp4' leaves the folder"),
    ("path,instruction\nx/../../up.mp4,b\n", "leaves the folder"),
    ("path,instruction\n/etc/passwd,b\n", "line 2: path '/etc/passwd' leaves the folder"),
    ("path,instruction\na\0b,c\n", "line 2: .*null|line contains NUL"),
]


@pytest.mark.parametrize(("text", "message"), BAD_CSV)
def test_a_mistake_in_a_csv_is_blamed_on_its_line(folder: Path, text: str, message: str) -> None:
    listing = write(folder, text)
    with pytest.raises(DatasetError, match=message) as caught:
        read_listing(listing)
    assert str(listing) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


BAD_JSONL = [
    ("{", "line 1: not JSON"),
    ("[1]", "line 1: holds a list, want an object"),
    ('{"path": "a", "path": "b"}', "line 1: .*more than once"),
    ('\n{"path": "a", "instruction": 3}', "line 2: instruction is 3, want a text"),
    ('{"path": "a", "instruction": "b", "success": 2}', "line 1: success is 2"),
    ('{"path": "a", "instruction": "b", "fps": true}', "line 1: fps is True"),
    ('{"path": "a", "instruction": "b", "fps": [1]}', r"line 1: fps is \[1\]"),
    ('{"paths": "a", "instruction": "b"}', "line 1: unknown column 'paths'"),
    ('{"instruction": "b"}', "line 1: the column 'path' is missing"),
    ('{"path": "a", "instruction": "b \\ud800"}', r"line 1: instruction 'b \\ud800' holds what is no character"),
]


@pytest.mark.parametrize(("text", "message"), BAD_JSONL)
def test_a_mistake_in_a_jsonl_is_blamed_on_its_line(folder: Path, text: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        read_listing(write(folder, text, "list.jsonl"))


def test_links_and_wider_roots(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "cup.mp4").write_bytes((folder / "cup.mp4").read_bytes())
    (folder / "link.mp4").symlink_to(outside / "cup.mp4")
    for path in ("link.mp4", str(outside / "cup.mp4"), f"../{outside.name}/cup.mp4"):
        listing = write(folder, f"path,instruction\n{path},go\n")
        with pytest.raises(DatasetError, match="leaves the folder"):
            read_listing(listing)
        assert read_listing(listing, root=outside.parent)[0].clip().num_frames == 5
        assert open_dataset(f"folder:{listing}", root=str(outside.parent))[0].clip().num_frames == 5
        with pytest.raises(DatasetError, match="leaves the folder"):
            read_listing(listing, root=folder / "frames")
    (folder / "frames/frame_3.png").unlink()
    (folder / "frames/frame_3.png").symlink_to(outside / "cup.mp4")
    with pytest.raises(VideoError, match=r"line 2 .frames.*frame_3.png is a link out of"):
        read_listing(write(folder, "path,instruction,fps\nframes,go,10\n"))[0].clip()


def test_what_only_the_video_tells_waits_until_it_is_opened(folder: Path) -> None:
    (folder / "broken.mp4").write_bytes(b"no video")
    (folder / "empty").mkdir()
    rows = ["gone.mp4,go,", "broken.mp4,go,", "frames,go,", "empty,go,10", "cup.mp4,go,30", "../x.mp4,go,"]
    messages = ["line 2 .gone.mp4.: the video .* is missing", "broken.mp4", "fps", "empty", "fps"]
    listing = write(folder, "path,instruction,fps\n" + "\n".join(rows[:-1]) + "\n")
    for episode, message in zip(read_listing(listing), messages, strict=True):
        with pytest.raises(VideoError, match=message) as caught:
            episode.clip()
        assert episode.id in str(caught.value)


def test_links_in_a_circle(folder: Path) -> None:
    (folder / "loop.mp4").symlink_to("loop.mp4")
    with pytest.raises(DatasetError, match=r"line 2: path 'loop.mp4' cannot be followed"):
        read_listing(write(folder, "path,instruction\nloop.mp4,go\n"))


def test_no_instruction_for_all_is_no_instruction(folder: Path) -> None:
    listing = write(folder, "path,instruction\na.mp4,go\n")
    with pytest.raises(DatasetError, match="the instruction given for all rows is empty"):
        read_listing(listing, instruction=" ")


def test_which_listing(folder: Path) -> None:
    with pytest.raises(DatasetError, match="found none"):
        open_dataset(f"folder:{folder}")
    write(folder, "path,instruction\ncup.mp4,a\n", "a.csv")
    assert open_dataset(f"folder:{folder}")[0].instruction == "a"
    write(folder, "path,instruction\ncup.mp4,b\n", "b.csv")
    with pytest.raises(DatasetError, match=r"found a\.csv, b\.csv"):
        open_dataset(f"folder:{folder}")
    assert open_dataset(f"folder:{folder / 'b.csv'}")[0].instruction == "b"
    write(folder, "path,instruction\ncup.mp4,c\n", "episodes.csv")
    assert open_dataset(f"folder:{folder}")[0].instruction == "c"
    with pytest.raises(DatasetError, match="no file or folder"):
        open_dataset("folder:/no/such/place")
    with pytest.raises(DatasetError, match=r"a \.csv or a \.jsonl"):
        read_listing(write(folder, "x", "list.txt"))
    with pytest.raises(DatasetError, match=r"cannot be read|not a text in UTF-8"):
        read_listing(folder / "none.csv")
    (folder / "latin.csv").write_bytes(b"path,instruction\ncup.mp4,caf\xe9\n")
    with pytest.raises(DatasetError, match=r"cannot be read|not a text in UTF-8"):
        read_listing(folder / "latin.csv")
