"""From image files to pixels: what each kind of file means, what cannot be read, and what is kept of it."""

import os
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from distill_run.build import Builder
from distill_run.data.decode import CentreCrop, Decoder, Whole
from distill_run.data.memory import free_memory
from distill_run.data.opening import Feeds
from distill_run.data.pixels import TRANSPARENT
from distill_run.data.source import Split
from distill_run.listener import Listener
from distill_run.store import Store
from helpers import folder_settings, message_of, open_feed

AS_IT_IS = CentreCrop((4, 6), 1.0)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


def decoded(data: bytes, channels: int = 3, form: CentreCrop | Whole = AS_IT_IS) -> NDArray[np.uint8]:
    return np.asarray(Decoder(channels, form).decode(data)[0])


def gradient(height: int = 4, width: int = 6) -> NDArray[np.uint8]:
    """Colours that differ in every pixel and channel."""
    return (np.arange(height * width * 3).reshape(height, width, 3) * 251 % 256).astype(np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "TGA", "WEBP"])
def test_lossless_files_give_their_pixels(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    np.testing.assert_array_equal(decoded(saved(Image.fromarray(gradient()), kind, **options)), gradient())


def test_a_palette_gives_its_colours() -> None:
    image = Image.fromarray(gradient()).quantize(24)
    np.testing.assert_array_equal(decoded(saved(image, "GIF")), np.asarray(image.convert("RGB")))


def test_16_bits_become_8() -> None:
    """65,535 becomes 255, and every 257 one more: the nearest of the 256 levels."""
    values = np.array([[0, 257, 128, 129, 32768, 65535]] * 4, dtype=np.uint16)
    pixels = decoded(saved(Image.fromarray(values), "PNG"), channels=1)
    assert pixels[0].tolist() == [0, 1, 0, 1, 128, 255]


def test_pixels_of_no_known_range_are_refused() -> None:
    told = "^its pixels are {}, and nobody knows which one is white: save it with 8 or 16 bits$"
    for kind, words in ((np.float32, "floating-point numbers"), (np.int32, "numbers of 32 bits")):
        values = np.zeros((4, 6), kind)
        with pytest.raises(ValueError, match=told.format(words)):
            decoded(saved(Image.fromarray(values), "TIFF"))


def test_what_is_transparent_becomes_white() -> None:
    """A half-transparent black of alpha 51 keeps a fifth of itself: 255 * 0.8 = 204."""
    pixels = np.zeros((4, 6, 4), dtype=np.uint8)
    pixels[:, 1, 3], pixels[:, 2, 3] = 51, 255
    image, remarks = Decoder(3, AS_IT_IS).decode(saved(Image.fromarray(pixels), "PNG"))
    assert remarks == [TRANSPARENT]
    assert np.asarray(image)[0, :3, 0].tolist() == [255, 204, 0]
    pixels[:, :, 3] = 255
    assert Decoder(3, AS_IT_IS).decode(saved(Image.fromarray(pixels), "PNG")).remarks == []


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_upright_once(orientation: int, kind: str) -> None:
    """As EXIF says; Pillow itself turns a TIFF while it reads it."""
    exif = Image.Exif()
    exif[0x112] = orientation
    turned = Image.fromarray(gradient())
    back = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)
    for method in {
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_270],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_90],
    }.get(back, []):
        turned = turned.transpose(method)
    options = {"lossless": True} if kind == "WEBP" else {}
    np.testing.assert_array_equal(decoded(saved(turned, kind, exif=exif, **options)), gradient())


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_data_do_not_cost_the_photograph() -> None:
    whole = saved(Image.fromarray(gradient()), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0\xff\xff")
    assert decoded(whole).shape == (4, 6, 3)


def test_a_centre_crop_keeps_the_middle_and_its_share() -> None:
    """A photograph of 8 x 24 with a bright square of 4 x 4 in the middle."""
    pixels = np.zeros((8, 24, 3), dtype=np.uint8)
    pixels[2:6, 10:14] = 200
    data = saved(Image.fromarray(pixels), "PNG")
    assert (decoded(data, form=CentreCrop((4, 4), 0.5)) == 200).all()
    whole = decoded(data, form=CentreCrop((8, 8), 1.0))
    np.testing.assert_array_equal(whole, pixels[:, 8:16])


def test_large_photographs_are_decoded_at_a_reduced_scale() -> None:
    """Where the form leaves enough pixels; whole photographs keep their proportions."""
    smooth = Image.linear_gradient("L").resize((640, 480)).convert("RGB")
    for kind in ("JPEG", "PNG"):
        data = saved(smooth, kind)
        assert decoded(data, form=Whole(60)).shape == (60, 80, 3)
        assert decoded(data, form=Whole(61)).shape == (120, 160, 3)
        assert decoded(data, form=Whole(600)).shape == (480, 640, 3)
        exact = np.asarray(smooth.resize((64, 64), Image.Resampling.BICUBIC, box=(80, 0, 560, 480))).astype(int)
        assert np.abs(decoded(data, form=CentreCrop((64, 64), 1.0)) - exact).max() <= 3


def test_the_pixels_of_a_folder_are_those_of_its_files(photos: Path, tmp_path: Path) -> None:
    feed = open_feed(folder_settings(photos), tmp_path / "store", val_fraction=0.5)
    assert isinstance(feed.train, Split)
    for split in (feed.train, feed.val, feed.test):
        for index in range(len(split)):
            pixels = np.asarray(Image.open(photos / split.name(index)))
            assert torch.equal(split.image(index), torch.from_numpy(pixels.copy()).permute(2, 0, 1))


def test_unreadable_files_are_named(photos: Path, tmp_path: Path) -> None:
    day = photos / "train" / "day"
    (day / "00.png").write_bytes((day / "00.png").read_bytes()[:-40])
    (day / "01.png").write_bytes(b"")
    (day / "02.png").write_text("no image")
    settings, store = folder_settings(photos), tmp_path / "store"
    remedy = "\n  mend or remove the file, or write dataset.on_error=skip"
    text = message_of(open_feed, settings, store, val_fraction=0.01)
    assert f"{day / '00.png'} cannot be read: " in text
    assert f"{day / '01.png'} cannot be read: it is empty{remedy}" in text
    assert f"{day / '02.png'} cannot be read: it is no image of a known format{remedy}" in text
    (day / "02.png").unlink()
    (day / "02.png").symlink_to("nowhere.png")
    text = message_of(open_feed, settings, store, val_fraction=0.01)
    assert f"{day / '02.png'} cannot be read: No such file or directory{remedy}" in text
    (day / "02.png").unlink()
    for path in day.iterdir():
        path.write_bytes(b"")
    text = message_of(open_feed, settings, store, val_fraction=0.01)
    assert text.count("cannot be read: it is empty") == 5 + 1  # of train, where the others are counted, and of val
    assert "\nand 5 more files that cannot be read" in text


def test_unreadable_files_can_be_skipped_and_are_counted(photos: Path, tmp_path: Path) -> None:
    (photos / "test" / "night" / "03.png").write_bytes(b"")
    whole = open_feed(folder_settings(photos), tmp_path / "whole", on_error="skip", test_fraction=0.1)
    assert len(whole.test) == 11
    assert whole.test.targets.tolist() == [0] * 6 + [1] * 5
    assert "test/night/03.png" not in [whole.test.name(index) for index in range(11)]
    assert "test: 1 file skipped, which cannot be read: test/night/03.png" in whole.notes
    assert whole.test.image(9).shape == (3, 8, 8)
    text = message_of(open_feed, folder_settings(photos), tmp_path / "whole")  # the store knows of the file already
    assert text.startswith(f"{photos / 'test' / 'night' / '03.png'} cannot be read: it is empty\n")


def test_test_images_that_stand_in_train_are_counted(photos: Path, tmp_path: Path) -> None:
    for name in ("00.png", "01.png"):
        (photos / "test" / "night" / name).write_bytes((photos / "train" / "day" / name).read_bytes())
    notes = open_feed(folder_settings(photos), tmp_path, val_fraction=0.01).notes
    assert any(note.startswith("1 test image stands in train") or note.startswith("2 test images") for note in notes)


def test_reading_says_how_far_it_is_and_that_it_is_over(photos: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []

    class Told(Listener):
        def worked(self, work: str, done: int, total: int) -> None:
            told.append((work, done, total))

    Feeds().open(folder_settings(photos), Builder(), torch.device("cpu"), Store(tmp_path / "store", Told()))
    assert [done for work, done, _ in told if work == "reading 22 images"] == [*range(1, 22), 21, 22]
    assert {work for work, _, _ in told} >= {
        f"listing the files of {photos}",
        "reading 12 images",
        "checking pixels.bin",
    }


def test_what_was_read_is_not_read_again_until_a_file_changes(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, store = folder_settings(photos), tmp_path / "store"
    first = open_feed(settings, store)
    with monkeypatch.context() as patch:
        patch.setattr(Decoder, "decode", lambda *_: pytest.fail("decoded again"))
        assert open_feed(settings, store).content == first.content
    for kept in store.rglob("pixels.bin"):
        kept.write_bytes(kept.read_bytes()[:100])
    assert torch.equal(open_feed(settings, store).train.image(0), first.train.image(0))
    path = photos / first.train.name(0)
    Image.new("RGB", (8, 8), (1, 2, 3)).save(path)
    assert open_feed(settings, store).train.image(0)[:, 0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("is_moved", [False, True])
def test_an_image_that_was_replaced_is_read_again_whatever_its_time(
    photos: Path, tmp_path: Path, is_moved: bool
) -> None:
    """By one of its size, written in place or moved there, with the old time, as tar, rsync -t and cp -p leave it."""
    settings, store = folder_settings(photos), tmp_path / "store"
    path = photos / "train" / "day" / "00.ppm"
    other = tmp_path / "other.ppm" if is_moved else path
    Image.new("RGB", (8, 8), (0, 0, 0)).save(path)
    os.utime(path, (0, 0))
    before = open_feed(settings, store).content
    Image.new("RGB", (8, 8), (1, 2, 3)).save(other)
    os.utime(other, (0, 0))
    other.replace(path)
    assert open_feed(settings, store).content != before


def test_an_image_that_changes_its_size_while_it_is_in_use_is_told(photos: Path, tmp_path: Path) -> None:
    settings = folder_settings(photos, "dataset.augment.random_resized_crop.scale=auto")
    train = open_feed(settings, tmp_path, memory_gigabytes=0, workers=0, image_size=4).train
    path = photos / train.name(0)
    Image.new("RGB", (9, 8)).save(path)
    assert message_of(list, train.chunks(1)) == (
        f"{path} has become another image since it was first read\n  mend the file, then go on with resume=RUN_FOLDER"
    )


def test_the_statistics_are_those_of_the_training_pixels(photos: Path, tmp_path: Path) -> None:
    kept = open_feed(folder_settings(photos), tmp_path / "store")
    read = open_feed(folder_settings(photos), tmp_path / "store", memory_gigabytes=0)
    pixels = torch.cat(list(kept.train.chunks(7))).double()
    mean, std = kept.channel_statistics()
    assert mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=6e-5)
    assert std == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist(), abs=6e-5)
    assert read.channel_statistics() == (mean, std)


def test_the_free_memory_is_less_than_all_memory() -> None:
    free = free_memory()
    if sys.platform == "linux":
        assert free is not None
        assert 0 < free < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    else:
        assert free is None
