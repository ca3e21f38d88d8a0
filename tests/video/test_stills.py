"""A stranger's picture is read rightly or refused by name, in a list, in a folder and inside parquet alike."""

from __future__ import annotations

import ast
import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import EpsImagePlugin, Image

import topreward
from topreward.errors import TopRewardError, VideoError
from topreward.video import read_video, stills
from videos import picture

PICTURE = picture(5, 48, 64)


def png(pixels: NDArray[Any], colour: int) -> bytes:
    """A PNG of 16-bit samples, big-endian (H, W, C); Pillow cannot write colour ones."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(pixels: NDArray[Any], photometric: int, order: str = "<", sample_format: int = 1) -> bytes:
    """An uncompressed TIFF of any depth."""
    height, width, channels = pixels.shape
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, channels, 8 * pixels.itemsize),
        (259, 3, 1, 1),
        (262, 3, 1, photometric),
        (273, 4, 1, 8),
        (277, 3, 1, channels),
        (278, 4, 1, height),
        (279, 4, 1, len(data)),
        (339, 3, channels, sample_format),
    ]
    at = 8 + len(data)
    beside = at + 2 + 12 * len(entries) + 4
    directory, extra = struct.pack(order + "H", len(entries)), b""
    for tag, kind, count, value in entries:
        values = struct.pack(order + ("H" if kind == 3 else "I") * count, *[value] * count)
        if len(values) > 4:
            field, extra = struct.pack(order + "I", beside + len(extra)), extra + values
        else:
            field = values.ljust(4, b"\0")
        directory += struct.pack(order + "HHI", tag, kind, count) + field
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(order + "I", at) + data + directory + bytes(4) + extra


DEEP = np.random.default_rng(0).integers(0, 4096, (48, 64, 4))
TOO_DEEP = {
    "grey.png": png(DEEP[..., :1], 0),
    "rgb.png": png(DEEP[..., :3], 2),
    "grey_alpha.png": png(DEEP[..., :2], 4),
    "rgba.png": png(DEEP, 6),
    "grey.tif": tiff(DEEP[..., :1].astype(np.uint16), 1),
    "rgb.tif": tiff(DEEP[..., :3].astype(np.uint16), 2),
    "rgb_big_endian.tif": tiff(DEEP[..., :3].astype(np.uint16), 2, ">"),
    "rgba.tif": tiff(DEEP.astype(np.uint16), 2),
    "cmyk.tif": tiff(DEEP.astype(np.uint16), 5),
    "float.tif": tiff(DEEP[..., :1].astype(np.float32), 1, sample_format=3),
    "long.tif": tiff(DEEP[..., :1].astype(np.int32), 1, sample_format=2),
    "signed.tif": tiff(DEEP[..., :1].astype(np.int8), 1, sample_format=2),
    "rgb.ppm": b"P6\n64 48\n4095\n" + DEEP[..., :3].astype(">u2").tobytes(),
    "rgb_words.ppm": b"P3\n2 1\n1000\n1 2 3 4 5 6\n",
    "grey.pgm": b"P5\n64 48\n65535\n" + DEEP[..., :1].astype(">u2").tobytes(),
}


@pytest.mark.parametrize("name", TOO_DEEP)
def test_more_than_8_bits_are_refused_by_what_is_stored(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(TOO_DEEP[name])
    with Image.open(path) as image:
        assert image.size[0] > 0, "Pillow reads it"
    with pytest.raises(VideoError, match=r"more than 8 bits a channel|can be read") as caught:
        read_video([path], fps=1)
    assert name in str(caught.value)
    with pytest.raises(VideoError, match=r"^frame 3: "):
        stills.pixels(TOO_DEEP[name], "frame 3")


def test_8_bits_are_read_whoever_wrote_them(tmp_path: Path) -> None:
    (tmp_path / "0.tif").write_bytes(tiff(PICTURE, 2))
    (tmp_path / "1.tif").write_bytes(tiff(PICTURE, 2, ">"))
    (tmp_path / "2.ppm").write_bytes(b"P6 64 48 255\n" + PICTURE.tobytes())
    Image.fromarray(PICTURE).save(tmp_path / "3.webp", lossless=True)
    Image.fromarray(PICTURE).save(tmp_path / "4.bmp")
    for path in sorted(tmp_path.iterdir()):
        np.testing.assert_array_equal(read_video([path], fps=1).frames([0])[0], PICTURE, err_msg=path.name)


# --- nothing is started, followed or waited for -----------------------------------------------------------

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\n%%EndComments\nshowpage\n"


def test_no_program_is_started_for_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was started"))
    path = tmp_path / "0.png"
    path.write_bytes(POSTSCRIPT)
    with Image.open(path) as image:
        assert image.format == "EPS", "Pillow would"
    with pytest.raises(VideoError, match=r"0\.png: not an image that can be read \(PostScript"):
        read_video([path], fps=1)
    with pytest.raises(VideoError, match=r"PostScript"):
        read_video(tmp_path, fps=1)
    with pytest.raises(VideoError, match=r"^frame 0: not an image that can be read \(PostScript"):
        stills.pixels(POSTSCRIPT, "frame 0")


@pytest.mark.parametrize("kind", ["GIF", "ICO", "PCX", "TGA", "SGI", "DDS", "IM", "PDF"])
def test_only_the_six_formats_are_tried(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "0.png"
    Image.fromarray(PICTURE).save(path, format=kind)
    with pytest.raises(VideoError, match="want PNG, JPEG, BMP, WEBP, TIFF, PPM"):
        read_video([path], fps=1)


def test_one_place_opens_pictures() -> None:
    root = Path(topreward.__file__).parent
    callers = set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Attribute)
                and node.attr == "open"
                and ast.unparse(node.value) in ("Image", "PIL.Image")
            ):
                callers.add(path.relative_to(root).as_posix())
    assert callers == {"video/stills.py"}


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "endless.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to("loop.png")
    causes = {
        "pipe.png": "not a regular file",
        "endless.png": "not a regular file",
        "folder.png": "a folder",
        "loop.png": "cannot be opened",
        "nul\0.png": "cannot be opened",
        f"{'x' * 300}.png": "cannot be opened",
    }
    for name, cause in causes.items():
        with pytest.raises(VideoError, match=cause) as caught:
            read_video([tmp_path / name], fps=1)
        assert "\n" not in str(caught.value)
    with pytest.raises(VideoError):
        read_video(tmp_path, fps=1)


# --- one picture a file, whole, and turned like its neighbours ----------------------------------------------


@pytest.mark.parametrize("name", ["stack.tif", "stack_lzw.tif", "animated.png", "animated.webp"])
def test_a_file_of_several_pictures_is_no_frame(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    pictures = [Image.fromarray(picture(number, 48, 64)) for number in range(4)]
    options = {"compression": "tiff_lzw"} if "lzw" in name else {}
    pictures[0].save(path, save_all=True, append_images=pictures[1:], **options)
    for source in ([path], tmp_path):
        with pytest.raises(VideoError, match=r"several pictures|an animated WebP") as caught:
            read_video(source, fps=1)
        assert name in str(caught.value)
    with pytest.raises(VideoError, match=r"several pictures|an animated WebP"):
        stills.pixels(path.read_bytes(), "frame 0")


def test_previews_behind_a_jpeg_are_not_the_picture(tmp_path: Path) -> None:
    both = [Image.fromarray(picture(number, 48, 64)) for number in (5, 9)]
    both[0].save(tmp_path / "0.jpg", format="MPO", save_all=True, append_images=both[1:], quality=95)
    frame = read_video([tmp_path / "0.jpg"], fps=1).frames([0])[0]
    assert np.abs(frame.astype(int) - PICTURE).mean() < 8


WRITTEN: dict[str, dict[str, Any]] = {
    "png": {},
    "jpg": {},
    "webp": {},
    "bmp": {},
    "ppm": {},
    "tif": {},
    "lzw.tif": {"compression": "tiff_lzw"},
    "jpeg.tif": {"compression": "jpeg"},
    "progressive.jpg": {"progressive": True},
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_picture_cut_short_anywhere_is_an_error(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"0.{name}"
    Image.fromarray(PICTURE).save(path, **WRITTEN[name])
    whole = path.read_bytes()
    assert read_video([path], fps=1).frames([0]).shape == (1, 48, 64, 3)
    for end in sorted({len(whole) - n for n in (1, 2, 4, 8, 12, 13, 40)} | {len(whole) * k // 9 for k in range(1, 9)}):
        path.write_bytes(whole[:end])
        with pytest.raises(TopRewardError) as caught:
            read_video([path], fps=1).frames([0])
        assert path.name in str(caught.value), f"cut at {end} of {len(whole)}"
        with pytest.raises(TopRewardError):
            stills.pixels(whole[:end], "frame 0")


@pytest.mark.parametrize("name", ["0.png", "0.jpg"])
def test_a_picture_whose_rest_is_zeros_is_an_error(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    Image.fromarray(PICTURE).save(path)
    whole = path.read_bytes()
    for end in (len(whole) // 2, len(whole) * 3 // 4, len(whole) - 30):
        path.write_bytes(whole[:end].ljust(len(whole), b"\0"))
        with pytest.raises(VideoError, match="corrupt or truncated"):
            read_video([path], fps=1).frames([0])


def test_a_flipped_bit_in_a_png_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "0.png"
    Image.fromarray(PICTURE).save(path)
    whole = path.read_bytes()
    for at in np.random.default_rng(0).integers(8, len(whole), 60):
        data = bytearray(whole)
        data[at] ^= 4
        path.write_bytes(data)
        with pytest.raises(TopRewardError):
            read_video([path], fps=1).frames([0])


TURNED = {1: PICTURE, 3: np.rot90(PICTURE, 2), 6: np.rot90(PICTURE, -1), 8: np.rot90(PICTURE)}


def encoded(orientation: int, kind: str = "PNG") -> bytes:
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"TIFF": {"tiffinfo": {0x0112: orientation}}, "WEBP": {"exif": exif, "lossless": True}}
    Image.fromarray(PICTURE).save(file, kind, **options.get(kind, {"exif": exif}))
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", TURNED)
def test_an_orientation_that_all_share_is_applied(kind: str, orientation: int, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.{kind.lower()}").write_bytes(encoded(orientation, kind))
    clip = read_video(tmp_path, fps=1)
    assert (clip.height, clip.width) == TURNED[orientation].shape[:2]
    np.testing.assert_array_equal(clip.frames([0, 2])[1], TURNED[orientation])


def test_an_orientation_behind_the_pixels_counts(tmp_path: Path) -> None:
    whole = encoded(3)
    at = whole.index(b"eXIf") - 4
    length = 12 + int.from_bytes(whole[at : at + 4], "big")
    end = len(whole) - 12
    (tmp_path / "0.png").write_bytes(whole[:at] + whole[at + length : end] + whole[at : at + length] + whole[end:])
    np.testing.assert_array_equal(read_video(tmp_path, fps=1).frames([0])[0], TURNED[3])


@pytest.mark.parametrize("odd", [2, 3])
def test_one_turned_picture_of_many_is_an_error(odd: int, tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number}.png").write_bytes(encoded(odd if number == 7 else 1))
    with pytest.raises(VideoError, match=rf"7\.png: its EXIF orientation is {odd}, that of 0\.png 1"):
        read_video(tmp_path, fps=1)
    (tmp_path / "7.png").write_bytes(encoded(1))
    clip = read_video(tmp_path, fps=1)
    (tmp_path / "7.png").write_bytes(encoded(odd))
    with pytest.raises(VideoError, match=r"7\.png: .*when opened"):
        clip.frames([7])


# --- bombs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_a_small_file_of_a_huge_picture_is_refused_unread(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPREWARD_MAX_PICTURE_PIXELS", "3000")
    with pytest.raises(VideoError, match=r"frame 0: frames of 48x64 px: 3072 px.*TOPREWARD_MAX_PICTURE_PIXELS"):
        stills.pixels(encoded(1, kind), "frame 0")
    monkeypatch.setenv("TOPREWARD_MAX_PICTURE_PIXELS", "3072")
    stills.pixels(encoded(1, kind), "frame 0")


def test_a_webp_canvas_is_checked_before_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    header = b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(4) + b"\xfe\x3f\0" * 2 + bytes(40)  # 16383 x 16383 px
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(VideoError, match="frame 0: frames of 16383x16383 px: 268402689 px"):
        stills.pixels(header, "frame 0")
