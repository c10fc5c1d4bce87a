"""Image files that were damaged at random, or that claim to be enormous: they are read, or named, and nothing else.

The long form damages each of the files 4,000 times: pytest -m slow tests/test_damaged_files.py
"""

import random
import struct
import subprocess
import sys
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from distill_run.data.decode import CentreCrop, Decoder, Whole, header_size
from distill_run.data.formats import READ

DECODERS = (Decoder(3, CentreCrop((8, 8), 1.0)), Decoder(1, Whole(8)))
EXIF = Image.Exif()
EXIF[0x112], EXIF[0x10F] = 6, "a camera"
MODES = {
    "GIF": ["P"],
    "BLP": ["P"],
    "MSP": ["1"],
    "XBM": ["1"],
    "PNG": ["RGB", "P", "RGBA", "1"],
    "TIFF": ["RGB", "CMYK"],
}
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "TIFF": [{"compression": each} for each in ("raw", "tiff_lzw", "tiff_deflate", "packbits")],
    "JPEG": [{"exif": EXIF}, {"progressive": True}],
    **{kind: [{"exif": EXIF}] for kind in ("PNG", "WEBP", "AVIF", "MPO")},
}


def sound_files(kind: str) -> list[bytes]:
    """Small files of a format, in several modes and compressions, some of them with two frames."""
    pixels = (np.arange(24 * 18 * 3).reshape(24, 18, 3) * 251 % 256).astype(np.uint8)
    if kind == "PSD":  # Pillow does not write these
        header = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 24, 18, 8, 3) + bytes(4 + 4 + 4 + 2)
        return [header + pixels.transpose(2, 0, 1).tobytes()]
    if kind == "ICNS":  # Pillow writes all its sizes, up to 1,024 pixels
        small = BytesIO()
        Image.fromarray(pixels[:16, :16]).save(small, "PNG")
        length = small.tell()
        return [struct.pack(">4sI4sI", b"icns", length + 16, b"icp4", length + 8) + small.getvalue()]
    files = []
    for mode in MODES.get(kind, ["RGB"]):
        for options in OPTIONS.get(kind, [{}]):
            image = Image.fromarray(pixels).convert(mode)
            frames = {"save_all": True, "append_images": [image.rotate(90)]}
            for more in ({}, frames) if kind in ("GIF", "PNG", "TIFF", "WEBP", "AVIF") else ({},):
                file = BytesIO()
                image.save(file, kind, **options, **more)
                files.append(file.getvalue())
    return files


def damaged(data: bytes, generator: random.Random) -> bytes:
    """A file of which parts were lost, overwritten or put in; often in the first bytes, which say what it is."""
    content = bytearray(data)
    for _ in range(generator.choice((1, 1, 1, 2, 5))):
        near = generator.random() < 0.4
        place = generator.randrange(min(len(content), 64) if near else len(content))
        length = generator.choice((1, 2, 4, 64))
        kind = generator.choice(("cut", "bit", "overwritten", "overwritten", "lost", "put in"))
        filling = generator.choice((generator.randbytes(length), b"\xff" * length, bytes(length)))
        if kind == "cut":
            del content[max(place, 1) :]
        elif kind == "bit":
            content[place] ^= 1 << generator.randrange(8)
        else:
            end = place if kind == "put in" else place + length
            content[place:end] = b"" if kind == "lost" and length < len(content) else filling
    return bytes(content)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("num_cases", [150, pytest.param(4000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", READ)
def test_a_damaged_file_is_decoded_or_told(kind: str, num_cases: int, capfd: pytest.CaptureFixture[str]) -> None:
    """And nothing is printed, not by libraries in C either; pytest ignores warnings here, as the program does."""
    files, generator, num_told = sound_files(kind), random.Random(0), 0
    for file in files:
        assert DECODERS[0].decode(file).image.size == (8, 8)
    for case in range(num_cases):
        data = damaged(files[case % len(files)], generator)
        try:
            image = DECODERS[case % 2].decode(data).image
            assert image.mode == ("RGB", "L")[case % 2]
            assert case % 2 or image.size == (8, 8)
        except ValueError as error:
            num_told += bool(str(error))
        header_size(data)
    assert num_told > num_cases / 10
    assert capfd.readouterr() == ("", "")


def chunk(name: bytes, data: bytes) -> bytes:
    """A part of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_of_nothing(width: int, height: int, *chunks: bytes) -> bytes:
    """A PNG whose header claims a size, and which has no pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def claims(kind: str, width: int, height: int) -> bytes:
    """A file of a few bytes whose header claims this size."""
    little, small = struct.pack("<II", width, height), struct.pack("<HH", width % 65536, height % 65536)
    if kind == "PNG":
        return png_of_nothing(width, height)
    if kind == "PPM":
        return b"P6 %d %d 255\n" % (width, height)
    if kind == "QOI":
        return b"qoif" + struct.pack(">II", width, height) + b"\3\0" + bytes(20)
    if kind == "XBM":
        return b"#define a_width %d\n#define a_height %d\nstatic char a_bits[] = {\n0x00};" % (width, height)
    if kind == "ICO":
        inner = png_of_nothing(width, height)
        return struct.pack("<HHHBBBBHHII", 0, 1, 1, 0, 0, 0, 0, 1, 32, len(inner), 22) + inner
    place, size = {"BMP": (18, little), "DDS": (12, little), "BLP": (12, little), "GIF": (6, small)}[kind]
    file = bytearray(sound_files(kind)[0])
    file[place : place + len(size)] = size
    return bytes(file)


@pytest.mark.parametrize("kind", ["PNG", "PPM", "QOI", "XBM", "ICO", "BMP", "DDS", "BLP"])
def test_an_image_of_a_size_that_no_memory_holds_is_refused_with_the_limit(kind: str) -> None:
    with pytest.raises(ValueError, match=r"^Image size \(10000000000 pixels\) exceeds limit of 178956970 pixels$"):
        DECODERS[0].decode(claims(kind, 100_000, 100_000))


PROGRAM = """
import resource, sys
from distill_run.data.decode import Decoder, Whole
resource.setrlimit(resource.RLIMIT_AS, (2_500_000_000,) * 2)
for text in sys.stdin:
    try:
        print(Decoder(3, Whole(8)).decode(bytes.fromhex(text)))
    except ValueError as error:
        print(error)
"""


def told_in_little_memory(*files: bytes) -> list[str]:
    """What a process that may take 2.5 GB says of image files, a line for each; it must print nothing else."""
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", PROGRAM],
        input="\n".join(file.hex() for file in files),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_bombs_and_damaged_files_print_no_warning() -> None:
    """Of Pillow for 144 million pixels and for damaged EXIF data, of libtiff for damaged pixels."""
    exif, tiff = BytesIO(), sound_files("TIFF")[2]
    Image.new("L", (8, 8)).save(exif, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0\xff\xff")
    damaged_tiff = tiff[:100] + b"\xff" * 100 + tiff[200:]
    large, sound, told = told_in_little_memory(claims("PNG", 12_000, 12_000), exif.getvalue(), damaged_tiff)
    assert large.startswith("image file is truncated")
    assert sound.startswith("Decoded(image=<PIL.Image.Image image mode=RGB size=8x8")
    assert told == "decoder error -2"


@pytest.mark.slow
def test_the_largest_image_that_is_read_takes_less_than_two_and_a_half_gigabytes() -> None:
    """178.7 million transparent pixels, in a file of 700 kB."""
    side, packer = 13_370, zlib.compressobj()
    pixels = b"".join([*(packer.compress(bytes(1 + 4 * side)) for _ in range(side)), packer.flush()])
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    assert told_in_little_memory(bomb)[0].startswith("Decoded(image=<PIL.Image.Image image mode=RGB size=1672x1672")


def test_what_is_packed_into_a_header_is_not_unpacked() -> None:
    """30 MB of zeros in a colour profile, and in a text."""
    packed = zlib.compress(bytes(30_000_000), 1)
    for name in (b"iCCP", b"zTXt"):
        with pytest.raises(ValueError, match=r"^Decompressed data too large"):
            DECODERS[0].decode(png_of_nothing(8, 8, chunk(name, b"a\0\0" + packed)))
