"""What the numbers in image files mean: pixels that were worked out by hand, for each mode and depth."""

import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from distill_run.data.decode import Decoded, Decoder, Whole
from distill_run.data.formats import READ, extensions
from distill_run.data.listing import why_skipped
from distill_run.data.pixels import DARK, DEEP, FRAMES, TRANSPARENT
from helpers import folder_settings, message_of, open_feed


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


def decoded(data: bytes, channels: int = 3) -> Decoded:
    """A photograph of any size, as it is."""
    return Decoder(channels, Whole(1000)).decode(data)


def levels(data: bytes, channels: int = 1) -> list[Any]:
    """The pixels of the first row."""
    row: list[Any] = np.asarray(decoded(data, channels).image)[0].tolist()
    return row


def png(depth: int, colour: int, row: bytes, width: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of one row, as its standard has it: `colour` is 0 for grey, 2 for RGB, 3 for a palette."""
    header = struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )


def tiff(bits: int, photometric: int, row: bytes, width: int) -> bytes:
    """A grey TIFF of one row, little-endian."""
    tags = {256: width, 257: 1, 258: bits, 259: 1, 262: photometric, 273: 200, 277: 1, 278: 1, 279: len(row)}
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items())
    return (b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries).ljust(200, b"\0") + row


@pytest.mark.parametrize(
    ("depth", "row", "width", "key", "expected"),
    [
        (1, b"\x40", 3, 0, [255, 255, 255]),
        (2, b"\x1b", 4, 1, [0, 255, 170, 255]),
        (4, b"\x05\xaf", 4, 5, [0, 255, 170, 255]),
        (8, bytes([0, 7, 170, 255]), 4, 7, [0, 255, 170, 255]),
        (16, struct.pack(">4H", 0, 1285, 43690, 65535), 4, 1285, [0, 255, 170, 255]),
    ],
)
def test_a_transparent_grey_becomes_white_in_every_depth(
    depth: int, row: bytes, width: int, key: int, expected: list[int]
) -> None:
    data = png(depth, 0, row, width, (b"tRNS", struct.pack(">H", key)))
    assert levels(data) == expected
    assert TRANSPARENT in decoded(data).remarks


def test_transparent_colours_become_white() -> None:
    colours = bytes([1, 2, 3, 9, 9, 9])
    assert levels(png(8, 2, colours, 2, (b"tRNS", struct.pack(">3H", 1, 2, 3))), 3) == [[255] * 3, [9] * 3]
    deep = struct.pack(">6H", 0x1234, 0x5678, 0x9ABC, 0xFFFF, 0x8000, 0x00FF)
    assert levels(png(16, 2, deep, 2), 3) == [[0x12, 0x56, 0x9A], [255, 128, 0]]  # the upper half of each number
    key = (b"tRNS", struct.pack(">3H", 0x1234, 0x5678, 0x9ABC))
    assert levels(png(16, 2, deep, 2, key), 3) == [[255] * 3, [255, 128, 0]]
    palette = (b"PLTE", bytes([0, 0, 0, 10, 20, 30])), (b"tRNS", bytes([51]))
    assert levels(png(8, 3, b"\0\1", 2, *palette), 3) == [[204] * 3, [10, 20, 30]]  # black of alpha 51: 255 * 0.8


@pytest.mark.parametrize(
    ("bits", "photometric", "row", "width", "expected"),
    [
        (12, 1, bytes.fromhex("000800fff3e8"), 4, [0, 128, 255, 62]),  # 0, 2048, 4095, 1000 of 4,095
        (16, 1, struct.pack("<4H", 0, 257, 32768, 65535), 4, [0, 1, 128, 255]),
        (16, 0, struct.pack("<4H", 0, 257, 32768, 65535), 4, [255, 254, 127, 0]),  # where white is 0
        (8, 0, bytes([0, 1, 255]), 3, [255, 254, 0]),
        (1, 0, b"\x40", 3, [255, 0, 255]),
    ],
)
def test_a_tiff_has_the_depth_and_the_white_that_it_says(
    bits: int, photometric: int, row: bytes, width: int, expected: list[int]
) -> None:
    assert levels(tiff(bits, photometric, row, width)) == expected


def test_a_pgm_of_more_than_8_bits_has_the_white_that_it_says() -> None:
    assert levels(b"P5 3 1 4095\n" + struct.pack(">3H", 0, 2048, 4095)) == [0, 128, 255]
    assert levels(b"P2 3 1 65535\n0 32768 65535\n") == [0, 128, 255]
    assert levels(b"P3 1 1 1023\n1023 512 0\n", 3) == [[255, 128, 0]]
    with pytest.raises(ValueError, match=r"^its pixels are floating-point numbers, and nobody"):
        levels(b"Pf 1 1 -1.0\n" + struct.pack("<f", 0.5))


def test_both_orders_of_16_bits() -> None:
    numbers = np.array([[0, 257, 32768, 65535]])
    for order in ("<u2", ">u2"):
        assert levels(saved(Image.fromarray(numbers.astype(order)), "TIFF")) == [0, 1, 128, 255]


def test_colours_of_print_and_of_other_spaces() -> None:
    """Cyan, magenta, yellow and black; the JPEG's are inverted, as Adobe writes them."""
    inks = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert levels(saved(inks, "TIFF"), 3)[0] == [255, 0, 0]
    assert np.abs(np.array(levels(saved(inks, "JPEG", quality=100), 3)[0]) - [255, 0, 0]).max() <= 2
    white = levels(saved(Image.new("LAB", (2, 1), (255, 128, 128)), "TIFF"), 3)  # L* is 100, a* and b* are 0
    assert np.abs(np.array(white) - 255).max() <= 1
    assert levels(saved(Image.new("YCbCr", (2, 1), (128, 128, 128)), "TIFF"), 3) == [[128] * 3] * 2


@pytest.mark.parametrize("mode", ["LA", "PA", "RGBA"])
def test_alpha_of_any_mode_is_seen_on_white(mode: str) -> None:
    pixels = np.array([[[0, 0, 0, 0], [0, 0, 0, 51], [40, 40, 40, 255]]], dtype=np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    for kind in ("TIFF", "PNG"):
        if (mode, kind) != ("PA", "PNG"):
            found = decoded(saved(image, kind), 1)
            assert (np.asarray(found.image).tolist(), found.remarks) == ([[255, 204, 40]], [TRANSPARENT])


def test_a_large_transparent_image_is_put_on_white_band_by_band() -> None:
    alpha = np.zeros((2500, 3, 4), dtype=np.uint8)
    alpha[1023:1025, :, 3] = alpha[2499, :, 3] = 255
    found = np.asarray(decoded(saved(Image.fromarray(alpha), "PNG"), 1).image)
    assert np.flatnonzero(found[:, 0] == 0).tolist() == [1023, 1024, 2499]
    assert set(np.unique(found)) == {0, 255}


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP"])
def test_of_several_frames_the_first_is_read_and_that_is_said(kind: str) -> None:
    first, second = (Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 0, 255)))
    found = decoded(saved(first, kind, save_all=True, append_images=[second], **_lossless(kind)))
    assert np.asarray(found.image)[0, 0].tolist() == [255, 0, 0]
    assert found.remarks == [FRAMES]
    assert decoded(saved(first, kind, **_lossless(kind))).remarks == []
    assert decoded(saved(first, "MPO", save_all=True, append_images=[second])).remarks == []  # one picture, as a rule


def _lossless(kind: str) -> dict[str, bool]:
    return {"lossless": True} if kind == "WEBP" else {}


def test_numbers_that_use_a_part_of_16_bits_are_refused_or_named(photos: Path, tmp_path: Path) -> None:
    """12 bits in a file of 16: from 4,096 on a pixel is 16 of 255."""
    day = photos / "train" / "day"
    for most, name in ((4095, "a"), (255, "b")):
        Image.fromarray(np.full((8, 8), most, dtype=np.uint16)).save(day / f"{name}.png")
    settings = folder_settings(photos)
    words = "of 16 bits without a number above 4,095, where white is 65,535: they become nearly black"
    remedy = "multiply their numbers until white is 65,535, or save them with 8 bits"
    told = message_of(open_feed, settings, tmp_path, train_fraction=1.0, val_fraction=0.01)
    assert told == f"{day / 'a.png'}: 2 images {words}\n  {remedy}"
    Image.fromarray(np.full((8, 8), 65535, dtype=np.uint16)).save(day / "c.png")
    notes = open_feed(settings, tmp_path, val_fraction=0.01).notes
    assert f"train: 2 images {words}: train/day/a.png, train/day/b.png" in notes
    colours = png(16, 2, struct.pack(">3H", 4095, 0, 255), 1)
    assert decoded(colours).remarks == [DEEP, DARK]
    assert decoded(png(16, 2, struct.pack(">3H", 65535, 0, 255), 1)).remarks == [DEEP]


def test_every_format_that_pillow_writes_and_reads_is_read_or_named() -> None:
    """EPS starts Ghostscript, HDF5, GRIB, BUFR and WMF need other programs, SPIDER has floats, IM is to be removed."""
    Image.init()
    both = {name for name in Image.SAVE if name in Image.OPEN} - {"EPS", "HDF5", "GRIB", "BUFR", "WMF", "SPIDER", "IM"}
    assert both <= set(READ)
    for name in sorted(both):
        mode = {"GIF": "P", "BLP": "P", "MSP": "1", "XBM": "1"}.get(name, "RGB")
        image = Image.new("RGB", (16, 16), (255, 255, 255)).convert(mode)
        assert np.abs(np.asarray(decoded(saved(image, name)).image).astype(int) - 255).max() <= 2
    for extension, name in Image.registered_extensions().items():
        left = why_skipped(f"a{extension}")
        assert (left is None) == (name in READ)
        assert left is None or left.why == f"{extension} is not read as an image"
    assert {".jpg", ".jfif", ".mpo", ".png", ".tif", ".jp2", ".qoi", ".psd"} <= extensions()


def test_no_other_program_is_started_for_a_file_of_any_name() -> None:
    """PostScript in a file that is called photo.jpg: Pillow itself would hand it to Ghostscript."""
    with pytest.raises(ValueError, match=r"^it is no image of a known format$"):
        decoded(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")
