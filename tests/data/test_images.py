"""Image files of every kind become upright RGB squares, and what is no image is named."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from helpers import resize_to
from tlbench.base.errors import DataError
from tlbench.data import decoding, images

RED, BLUE = (200, 30, 30), (30, 30, 200)


@pytest.fixture
def halves() -> Image.Image:
    """Left half red, right half blue, 60 x 40."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :30], pixels[:, 30:] = RED, BLUE
    return Image.fromarray(pixels)


def near(pixel: np.ndarray, color: tuple[int, int, int], tolerance: int = 40) -> bool:
    return bool(np.abs(pixel.astype(int) - color).max() <= tolerance)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "gif", "webp", "tif", "ppm"])
def test_formats(halves: Image.Image, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    halves.save(path)
    pixels = decoding.decode(path, resize_to(20, "stretch"))
    assert pixels.shape == (20, 20, 3)
    assert pixels.dtype == np.uint8
    assert near(pixels[10, 3], RED)
    assert near(pixels[10, 16], BLUE)


@pytest.mark.parametrize(("mode", "suffix"), [("P", "png"), ("CMYK", "jpg"), ("RGBA", "png")])
def test_modes_keep_the_colours(
    halves: Image.Image, tmp_path: Path, mode: str, suffix: str
) -> None:
    path = tmp_path / f"image.{suffix}"
    halves.convert(mode).save(path)
    pixels = decoding.decode(path, resize_to(20, "stretch"))
    assert near(pixels[10, 3], RED)
    assert near(pixels[10, 16], BLUE)


def test_grayscale_and_sixteen_bits_agree(halves: Image.Image, tmp_path: Path) -> None:
    gray = halves.convert("L")
    gray.save(tmp_path / "8.png")
    Image.fromarray(np.asarray(gray).astype(np.uint16) * 257).save(tmp_path / "16.png")
    eight, sixteen = (
        decoding.decode(tmp_path / f"{n}.png", resize_to(20, "stretch")) for n in (8, 16)
    )
    np.testing.assert_array_equal(eight, sixteen)
    assert np.ptp(eight, axis=-1).max() == 0


def tiff(path: Path, values: np.ndarray, photometric: int = 1) -> Path:
    """Gray values as an uncompressed TIFF, with the type that the array has."""
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    height, width = values.shape
    tags = [
        *((256, width), (257, height), (258, 8 * values.itemsize), (259, 1), (262, photometric)),
        *((273, 8 + 2 + 12 * 10 + 4), (277, 1), (278, height), (279, values.nbytes), (339, kind)),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + directory + values.tobytes())
    return path


@pytest.mark.parametrize(
    ("dtype", "black", "white"),
    [
        ("uint16", 0, 65535),
        ("uint16", 0, 4095),  # 12 bits in 16
        ("uint16", 0, 255),
        ("int16", 0, 4095),
        ("int16", -1000, 3000),
        ("int32", 0, 65535),
        ("int32", -50_000, 2_000_000),
        ("float32", 0, 1),
        ("float32", 0, 255),
        ("float32", -1, 1),
        ("float32", 0, 65535),
        ("float32", -3e8, 7e8),
    ],
)
def test_more_than_eight_bits_show_what_eight_would(
    tmp_path: Path, dtype: str, black: float, white: float
) -> None:
    rng = np.random.default_rng(0)
    gray = rng.integers(0, 256, (40, 40), dtype=np.uint8)
    gray[0] = [0, 255] * 20  # the whole range, so that 8 bits are the same picture
    values = (black + gray / 255 * (white - black)).astype(dtype)
    path = tiff(tmp_path / "wide.tif", values)
    Image.fromarray(gray).save(tmp_path / "eight.png")
    wide, eight = (
        decoding.decode(p, resize_to(40, "stretch")) for p in (path, tmp_path / "eight.png")
    )
    assert np.abs(wide.astype(int) - eight).max() <= 2


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_white_is_zero_is_turned_round(tmp_path: Path, dtype: str) -> None:
    white = {"uint8": 255, "uint16": 65535, "float32": 1}[dtype]
    values = np.linspace(0, white, 400).reshape(20, 20).astype(dtype)
    straight = decoding.decode(tiff(tmp_path / "a.tif", values), resize_to(20, "stretch")).astype(
        int
    )
    turned = decoding.decode(
        tiff(tmp_path / "b.tif", values, photometric=0), resize_to(20, "stretch")
    )
    assert np.abs(straight + turned - 255).max() <= 1


def test_values_that_are_no_numbers_are_black(tmp_path: Path) -> None:
    values = np.full((8, 8), 0.5, np.float32)
    values[0, 0], values[0, 1] = np.nan, np.inf
    pixels = decoding.decode(tiff(tmp_path / "a.tif", values), resize_to(8, "stretch"))
    assert [pixels[0, 0, 0], pixels[0, 1, 0], pixels[5, 5, 0]] == [0, 255, 128]
    with pytest.raises(DataError, match="holds no number"):
        decoding.decode(tiff(tmp_path / "b.tif", values * np.nan), resize_to(8, "stretch"))


def test_metadata_never_costs_a_picture(halves: Image.Image, tmp_path: Path) -> None:
    plain = tmp_path / "plain.png"
    halves.save(plain)
    notes = PngImagePlugin.PngInfo()
    notes.add_text("history", "x" * 100_000_000, zip=True)
    halves.save(tmp_path / "text.png", pnginfo=notes)
    halves.save(tmp_path / "profile.png", icc_profile=bytes(3_000_000))
    halves.save(tmp_path / "profile.jpg", icc_profile=bytes(3_000_000), quality=95)
    odd = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\xff\xff\xff\xff\0\x01\0\0"
    halves.save(tmp_path / "exif.jpg", exif=odd, quality=95)
    halves.save(tmp_path / "noise.webp", exif=b"Exif\0\0nonsense", lossless=True)
    expected = decoding.decode(plain, resize_to(20, "stretch")).astype(int)
    for name in ("text.png", "profile.png", "profile.jpg", "exif.jpg", "noise.webp"):
        found = decoding.decode(tmp_path / name, resize_to(20, "stretch"))
        assert np.abs(expected - found).mean() < 4, name
    (tmp_path / "cut.png").write_bytes((tmp_path / "text.png").read_bytes()[:-200])
    with pytest.raises(DataError, match="not a readable image"):
        decoding.decode(tmp_path / "cut.png", resize_to(20, "stretch"))


def test_pictures_without_contrast_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for i in range(4):
        Image.new("RGB", (9, 9), (i, i, i)).save(tmp_path / f"{i}.png")
    with caplog.at_level("WARNING", "tlbench"):
        images.read(sorted(tmp_path.glob("*.png")), resize_to(8, "crop"), 1e9)
    assert "4 of 4 pictures have hardly any contrast" in caplog.text


def test_a_file_that_changes_after_it_was_read_is_named(
    halves: Image.Image, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path in paths:
        halves.save(path)
    table, _, _ = images.read(paths, resize_to(8, "crop"), memory_limit_bytes=0)
    assert table.batch(np.arange(3)).shape == (3, 8, 8, 3)
    halves.rotate(90).save(paths[1])
    with pytest.raises(DataError, match=r"1\.png has changed"):
        table.batch(np.arange(3))


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (10, 10), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert decoding.decode(tmp_path / "clear.png", resize_to(4, "crop")).min() == 255


def test_exif_orientation_is_applied(halves: Image.Image, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to view
    halves.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    pixels = decoding.decode(tmp_path / "turned.jpg", resize_to(20, "stretch"))
    assert near(pixels[3, 10], RED)
    assert near(pixels[16, 10], BLUE)


def test_a_large_photograph_is_the_same_with_and_without_the_quick_decoder(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 1600).astype(np.uint8)
    pixels = np.stack([np.tile(ramp, (1200, 1))] * 3, axis=-1)
    Image.fromarray(pixels).save(tmp_path / "large.jpg", quality=95)
    Image.fromarray(pixels).save(tmp_path / "large.png")
    jpg, png = (
        decoding.decode(tmp_path / f"large.{s}", resize_to(64, "stretch")) for s in ("jpg", "png")
    )
    assert np.abs(jpg.astype(int) - png).max() <= 4


def test_resizing_crops_pads_or_stretches(halves: Image.Image, tmp_path: Path) -> None:
    halves.save(tmp_path / "image.png")
    crop, pad, stretch = (
        decoding.decode(tmp_path / "image.png", resize_to(24, how))
        for how in ("crop", "pad", "stretch")
    )
    assert near(crop[0, 0], RED)
    assert pad[0, 0].max() == 0
    assert near(pad[12, 1], RED)
    assert near(stretch[0, 23], BLUE)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty"), (b"hello, I am text", "no format"), (b"\x89PNG\r\n\x1a\n", "")],
)
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "bad.jpg").write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.jpg.*" + reason):
        decoding.decode(tmp_path / "bad.jpg", resize_to(8, "crop"))


def test_truncated_and_enormous_images_are_refused(halves: Image.Image, tmp_path: Path) -> None:
    halves.resize((600, 400)).save(tmp_path / "cut.jpg")
    whole = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="truncated"):
        decoding.decode(tmp_path / "cut.jpg", resize_to(8, "crop"))
    Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")
    with pytest.raises(DataError, match="exceeds limit"):
        decoding.decode(tmp_path / "huge.png", resize_to(8, "crop"))


def test_streaming_gives_what_memory_gives(halves: Image.Image, tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for i, path in enumerate(paths):
        halves.rotate(10 * i).save(path)
    paths.insert(2, tmp_path / "bad.png")
    paths[2].write_bytes(b"nothing")
    held, good, lines = images.read(paths, resize_to(16, "crop"), memory_limit_bytes=1e9)
    streamed, also_good, _ = images.read(paths, resize_to(16, "crop"), memory_limit_bytes=0)
    assert held.held is not None
    assert streamed.held is None
    assert good.tolist() == also_good.tolist() == [0, 1, 3, 4, 5]
    assert len(lines) == 1
    assert "bad.png" in lines[0]
    order = np.array([4, 0, 2])
    np.testing.assert_array_equal(held.batch(order), streamed.batch(order))
    np.testing.assert_array_equal(held.ids, streamed.ids)
    assert held.decoding == streamed.decoding


def test_a_file_is_the_same_image_at_any_size_and_its_decoding_says_the_rest(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (40, 30), "red").save(path)
    small, large, streamed = (
        images.read([path], resize_to(size, "crop"), memory)[0]
        for size, memory in ((8, 1e9), (16, 1e9), (8, 0))
    )
    assert small.ids == large.ids == streamed.ids
    assert small.decoding == streamed.decoding != large.decoding
    assert f"Pillow {Image.__version__}" in small.decoding


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_colours_of_sixteen_bits_are_as_bright_as_of_eight(tmp_path: Path, bits: int) -> None:
    """Within what is left of them: Pillow drops the lower 8 of 16 bits."""
    red = [(channel << bits) >> 8 for channel in RED]
    rows = (b"\0" + struct.pack(">3H", *red) * 8) * 8
    header = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        crc = zlib.crc32(kind + body)
        content += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)
    (tmp_path / "deep.png").write_bytes(content)
    pixels = decoding.decode(tmp_path / "deep.png", resize_to(4, "crop"))
    assert near(pixels[1, 1], RED, tolerance=max(1, 2 ** (16 - bits)))
