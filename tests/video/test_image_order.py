"""Pictures of a folder come in the order of the numbers in their names, or there is an error that says why not."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from topreward.errors import VideoError
from topreward.video import read_video
from topreward.video.order import in_order
from videos import numbers_of, picture

FOLDER = Path("frames")
IN_ORDER = {
    "counted": [f"{k}.png" for k in range(12)],
    "padded": [f"frame_{k:03d}.png" for k in range(12)],
    "padded too little": [f"frame_{k:02d}.png" for k in range(95, 105)],
    "seconds": [f"{k / 4}.png" for k in range(12)],
    "floats as they are": [f"{k * 0.1}.png" for k in range(31)],
    "time of day": [f"{round(1.7e9 + 0.05 * k, 2)}.png" for k in range(12)],
    "padded time of day": [f"{1.7e9 + 0.05 * k:.6f}.png" for k in range(12)],
    "shortest": [f"{k / 4:g}.png" for k in range(12)],
    "decimal commas": [f"{k / 4}".replace(".", ",") + ".png" for k in range(12)],
    "with a unit": [f"t={k / 4}s.png" for k in range(12)],
    "behind a prefix": [f"frame{k / 4}_left.png" for k in range(12)],
    "from before zero": [f"{k / 4 - 1}.png" for k in range(12)],
    "from before zero, behind a prefix": [f"t_{k / 4 - 1:.2f}.png" for k in range(12)],
    "with both signs": [f"{k / 4:+.2f}.png" for k in range(-4, 5)],
    "exponents": [f"{k * 1e-5}.png" for k in range(30)],
    "two counters": [f"cam0.{k}.png" for k in range(12)],
    "three counters": [f"1.2.{k}.png" for k in range(12)],
    "nanoseconds without padding": [f"{10 + k}.{5 * 10 ** (6 + k % 3)}.png" for k in range(12)],
    "dashes": [f"cam-1-{k}.png" for k in range(12)],
    "clock": [f"2024-01-{k + 1:02d} 10.20.{k:02d}.png" for k in range(12)],
    "several cameras": [f"cam{camera}_{k}.png" for camera in (1, 2, 10) for k in (1, 2, 10)],
    "no numbers": ["a.png", "b.png", "c.png"],
    "digits of other scripts": [f"f{k}.png".translate(str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")) for k in range(12)],
    "wide digits": [f"f{k}.png".translate(str.maketrans("0123456789", "０１２３４５６７８９")) for k in range(12)],
    "raised digits": ["f¹.png", "f².png", "f³.png", "f¹⁰.png"],
}
IN_TWO_ORDERS = {
    "same number": ["1.png", "01.png"],
    "same decimal": ["0.5.png", "0.50.png", "0.05.png"],
    "upper case": ["a1.png", "A1.PNG"],
    "decimals or counters": ["0.05.png", "0.4.png", "0.40.png"],
    "two cameras": ["left_1.png", "right_1.png", "left_2.png", "right_2.png"],
    "a picture of something else": ["0.png", "1.png", "2.png", "background.png"],
    "a copy": ["f1.png", "f1 (1).png", "f2.png"],
    "hexadecimal": ["0e.png", "0f.png", "10.png", "11.png"],
    "minus or dash": ["-001.png", "-002.png", "-003.png"],
    "negative throughout": ["-0.75.png", "-0.5.png", "-0.25.png"],
}


@pytest.mark.parametrize("kind", IN_ORDER)
def test_numbers_in_names_are_the_order(kind: str) -> None:
    for seed in range(3):
        shuffled = list(IN_ORDER[kind])
        random.Random(seed).shuffle(shuffled)
        assert in_order(FOLDER, shuffled) == IN_ORDER[kind]


@pytest.mark.parametrize("kind", IN_TWO_ORDERS)
def test_where_nobody_can_say_the_order_there_is_an_error(kind: str) -> None:
    with pytest.raises(VideoError, match=r"^frames: .*\? Give a list of files, in order$"):
        in_order(FOLDER, IN_TWO_ORDERS[kind])


@given(st.lists(st.integers(-(10**12), 10**12), min_size=2, max_size=20, unique=True), st.sampled_from([3, 6, 9]))
def test_any_times_of_python_come_in_their_order(ticks: list[int], digits: int) -> None:
    times = sorted({round(tick / 10**digits, digits) for tick in ticks})
    for write in (str, lambda t: f"{t:.9f}"):
        names = [f"t={write(t)}.png" for t in times]
        if len(set(names)) < len(names) or all(t < 0 for t in times) or "-0.000000000" in str(names):
            continue
        assert in_order(FOLDER, reversed(names)) == names


def test_a_folder_is_read_in_that_order(tmp_path: Path) -> None:
    for number, name in enumerate(IN_ORDER["seconds"]):
        Image.fromarray(picture(number, 48, 64)).save(tmp_path / name)
    assert numbers_of(read_video(tmp_path, fps=4).frames(np.arange(12))) == list(range(12))
    Image.fromarray(picture(13, 48, 64)).save(tmp_path / "00.25.png")
    with pytest.raises(VideoError, match=r"which comes first, '0\.25\.png' or '00\.25\.png'"):
        read_video(tmp_path, fps=4)


@pytest.mark.parametrize("name", ["2.gif", "2.AVIF", "2.jp2", "2.pbm"])
def test_a_frame_of_a_kind_that_is_not_read_is_not_left_out(name: str, tmp_path: Path) -> None:
    for number in range(2):
        Image.fromarray(picture(number, 48, 64)).save(tmp_path / f"{number}.png")
    (tmp_path / ".hidden.gif").touch()
    (tmp_path / "notes.txt").touch()
    assert read_video(tmp_path, fps=1).num_frames == 2
    (tmp_path / name).write_bytes(b"a picture")
    with pytest.raises(VideoError, match="images of several kinds"):
        read_video(tmp_path, fps=1)
