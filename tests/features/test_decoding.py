"""Images as 8-bit RGB, against arrays written here and against torchvision's own loader."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL.Image import Transpose

from moevoprune.features.decoding import UnreadableImageError, open_image, silenced_warnings, to_rgb

Bytes = npt.NDArray[np.uint8]

COLOURS: Bytes = np.random.default_rng(3).integers(0, 256, size=(7, 10, 3), dtype=np.uint8)
# undoes what a camera with this orientation did to the picture
UPRIGHT: dict[int, Callable[[Bytes], Bytes]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a.transpose(1, 0, 2), 2),
    8: lambda a: np.rot90(a, 1),
}


def pixels(source: Path | io.BytesIO) -> Bytes:
    image = open_image(source)
    assert image.mode == "RGB"
    return np.asarray(image)


def saved(image: PIL.Image.Image, format: str = "PNG", **options: object) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, format, **options)
    file.seek(0)
    return file


def reason(source: Path | io.BytesIO) -> str:
    with pytest.raises(UnreadableImageError) as caught:
        open_image(source)
    assert caught.value.reason == str(caught.value)
    assert caught.value.reason.isprintable()
    return caught.value.reason


def png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> io.BytesIO:
    """A PNG file written here, since Pillow does not write all there are."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return io.BytesIO(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


# --- ordinary modes --------------------------------------------------------------------------------


def test_rgb_comes_back_as_written(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    PIL.Image.fromarray(COLOURS).save(path)
    np.testing.assert_array_equal(pixels(path), COLOURS)
    with path.open("rb") as file:
        image = open_image(file)
        assert not file.closed
    np.testing.assert_array_equal(np.asarray(image), COLOURS)
    assert type(image) is PIL.Image.Image


@pytest.mark.parametrize(
    ("mode", "format"),
    [
        *(("1", "PNG"), ("L", "PNG"), ("L", "JPEG"), ("P", "PNG"), ("P", "GIF"), ("RGB", "JPEG"), ("RGB", "WEBP")),
        *(("RGB", "BMP"), ("LA", "PNG"), ("RGBA", "PNG"), ("RGBA", "WEBP"), ("CMYK", "JPEG"), ("CMYK", "TIFF")),
        *(("YCbCr", "JPEG"), ("RGB", "PPM"), ("RGBA", "TIFF"), ("RGB", "TGA")),
    ],
)
def test_ordinary_modes_are_torchvisions(tmp_path: Path, mode: str, format: str) -> None:
    from torchvision.datasets.folder import pil_loader

    path = tmp_path / "image"
    alpha = np.arange(0, 70, dtype=np.uint8).reshape(7, 10, 1) * 3
    source = PIL.Image.fromarray(np.concatenate([COLOURS, alpha], axis=2))
    if mode in ("1", "L", "P", "CMYK", "YCbCr"):
        source = source.convert("RGB")
    source.convert(mode).save(path, format)
    with PIL.Image.open(path) as again:
        assert again.size == (10, 7)
    np.testing.assert_array_equal(pixels(path), np.asarray(pil_loader(str(path))))


@pytest.mark.parametrize("mode", ["HSV", "YCbCr", "CMYK", "LA", "PA", "La", "RGBa", "RGBX", "LAB", "1", "P"])
def test_every_mode_in_memory_becomes_rgb(mode: str) -> None:
    image = PIL.Image.new(mode, (3, 2))
    assert (to_rgb(image).mode, to_rgb(image).size) == ("RGB", (3, 2))


def test_transparency_is_dropped() -> None:
    alpha = np.zeros((7, 10, 1), dtype=np.uint8)
    image = PIL.Image.fromarray(np.concatenate([COLOURS, alpha], axis=2))
    np.testing.assert_array_equal(pixels(saved(image)), COLOURS)
    grey = np.stack([COLOURS[..., 0], alpha[..., 0]], axis=2)
    expected = np.repeat(COLOURS[..., :1], 3, axis=2)
    np.testing.assert_array_equal(pixels(saved(PIL.Image.fromarray(grey, "LA"))), expected)


def test_palette_with_transparency_bytes_gives_no_warning() -> None:
    image = PIL.Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    file = saved(image, transparency=b"\x00\x80")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        np.testing.assert_array_equal(pixels(file), [[[10, 20, 30], [40, 50, 60]]])
    assert not seen


def test_adobe_inverted_cmyk() -> None:
    # Pillow writes the Adobe marker and inverted values, and undoes it on reading
    image = PIL.Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    file = saved(image, "JPEG", quality=95)
    assert b"Adobe" in file.getvalue()
    red, green, blue = pixels(file)[4, 4]
    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF", "MPO"])
def test_first_frame(format: str) -> None:
    if format == "MPO" and int(PIL.__version__.split(".")[0]) < 12:
        pytest.skip("older Pillow cannot read such small MPO files of its own")
    frames = [PIL.Image.new("RGB", (16, 16), colour) for colour in ("#c80000", "#00c800", "#0000c8")]
    options: dict[str, object] = {"lossless": True} if format == "WEBP" else {}
    file = saved(frames[0], format, save_all=True, append_images=frames[1:], **options)
    with PIL.Image.open(io.BytesIO(file.getvalue())) as image:
        assert image.n_frames == 3
    np.testing.assert_allclose(pixels(file)[8, 8], [200, 0, 0], atol=3)


# --- more than 8 bits ------------------------------------------------------------------------------

WIDE = np.array([[0, 1, 128, 129], [255, 256, 257, 385], [386, 32896, 65534, 65535]], dtype=np.uint16)
SCALED = np.array([[round(int(value) / 257) for value in row] for row in WIDE])


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PGM"])
def test_16_bit_grey_is_scaled(format: str) -> None:
    if format == "PGM":
        array = pixels(io.BytesIO(b"P5 4 3 65535\n" + WIDE.astype(">u2").tobytes()))
    else:
        array = pixels(saved(PIL.Image.fromarray(WIDE), format))
    for channel in range(3):
        np.testing.assert_array_equal(array[..., channel], SCALED)


def test_16_bit_big_endian() -> None:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in WIDE)
    np.testing.assert_array_equal(pixels(png(4, 3, 16, 0, rows))[..., 0], SCALED)
    tiff = PIL.Image.frombytes("I;16B", (4, 3), WIDE.astype(">u2").tobytes())
    np.testing.assert_array_equal(pixels(saved(tiff, "TIFF"))[..., 0], SCALED)


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B"])
def test_16_bit_modes_in_memory(mode: str) -> None:
    image = PIL.Image.frombytes(mode, (4, 3), WIDE.astype(">u2" if mode == "I;16B" else "<u2").tobytes())
    np.testing.assert_array_equal(np.asarray(to_rgb(image))[..., 2], SCALED)


def test_dark_16_bit_png_stays_dark_whatever_mode_pillow_gives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    dark = WIDE % 256
    np.testing.assert_array_equal(pixels(saved(PIL.Image.fromarray(dark)))[..., 0], (dark + 128) // 257)
    # as Pillow before 11.3 opened it
    older = PIL.Image.fromarray(dark.astype(np.int32))
    older.format = "PNG"
    np.testing.assert_array_equal(np.asarray(to_rgb(older))[..., 0], (dark + 128) // 257)


def test_16_bit_rgb_png() -> None:
    # 7 and 250 in both bytes
    array = np.full((2, 3, 3), 7 * 257, dtype=">u2")
    array[1] = 250 * 257
    rows = b"".join(b"\0" + row.tobytes() for row in array)
    np.testing.assert_array_equal(pixels(png(3, 2, 16, 2, rows)), array // 257)


def test_32_bit_integers_by_their_range() -> None:
    def grey(values: list[list[int]]) -> io.BytesIO:
        return saved(PIL.Image.fromarray(np.array(values, dtype=np.int32)), "TIFF")

    np.testing.assert_array_equal(pixels(grey([[0, 3, 255]]))[..., 0], [[0, 3, 255]])
    np.testing.assert_array_equal(pixels(grey([[0, 257, 65535]]))[..., 0], [[0, 1, 255]])
    assert "from -1 to 9" in reason(grey([[-1, 9]]))
    assert "from 0 to 65536" in reason(grey([[0, 65536]]))


def test_floats_are_refused() -> None:
    image = PIL.Image.fromarray(np.array([[0.0, 0.5]], dtype=np.float32))
    assert reason(saved(image, "TIFF")) == "floating-point images have no fixed range: convert to 8 or 16 bit"


def test_scaling_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moevoprune.features.decoding._BLOCK", 5)
    np.testing.assert_array_equal(np.asarray(to_rgb(PIL.Image.fromarray(WIDE)))[..., 0], SCALED)


# --- EXIF ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int, format: str) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    # flat blocks, so that JPEG changes little
    stored = np.repeat(np.repeat(COLOURS[:3, :2] // 8 * 8, 16, axis=0), 16, axis=1)
    options: dict[str, object] = {"quality": 95, "subsampling": 0} if format == "JPEG" else {}
    if format == "WEBP":
        options = {"lossless": True}
    array = pixels(saved(PIL.Image.fromarray(stored), format, exif=exif, **options))
    expected = UPRIGHT[orientation](stored)
    assert array.shape == expected.shape
    np.testing.assert_allclose(array.astype(int), expected.astype(int), atol=12 if format == "JPEG" else 0)


def test_exif_orientation_of_16_bit() -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    file = saved(PIL.Image.fromarray(WIDE), exif=exif)
    np.testing.assert_array_equal(pixels(file)[..., 1], np.rot90(SCALED, -1))


@pytest.mark.parametrize(
    "block",
    [
        b"Exif\0\0garbage that is no TIFF header",
        b"Exif\0\0",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\xff\xff\xff\xff\xf0\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x01\0\0\0ab\0\0\0\0\0\0",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0\0\0\0\0",
    ],
)
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_corrupt_exif_is_ignored(block: bytes, format: str) -> None:
    image = PIL.Image.fromarray(COLOURS)
    expected = pixels(saved(image, format))
    np.testing.assert_array_equal(pixels(saved(image, format, exif=block)), expected)


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=60))
def test_random_exif_never_warns_nor_raises(block: bytes) -> None:
    file = saved(PIL.Image.fromarray(COLOURS), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0" + block)
    assert sorted(open_image(file).size) == [7, 10]


# --- large images ----------------------------------------------------------------------------------


def test_large_image_is_decoded_without_warning() -> None:
    side = 12_000
    row = b"\0" + b"\xf0" * (side // 8)
    compressor = zlib.compressobj(1)
    # 144 megapixels: above the limit that warns, below the one that fails
    data = b"".join(compressor.compress(row * 100) for _ in range(side // 100)) + compressor.flush()

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    file = io.BytesIO(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    with pytest.warns(PIL.Image.DecompressionBombWarning):
        PIL.Image.open(io.BytesIO(file.getvalue())).close()
    image = open_image(file)
    assert image.size == (side, side)
    assert [image.getpixel((x, side - 1)) for x in (0, 3, 4, 7)] == [(255,) * 3, (255,) * 3, (0,) * 3, (0,) * 3]


def test_limit_of_pillow_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    file = saved(PIL.Image.new("L", (1000, 900)))
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 450_000)
    assert open_image(file).size == (1000, 900)
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 449_999)
    said = reason(file)
    assert said.startswith("has 0.9 megapixels, more than the limit of 0.899998: ")
    assert "MAX_IMAGE_PIXELS" in said
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", None)
    assert open_image(file).size == (1000, 900)


# --- what is no image ------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM"])
def test_truncated_files(format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, size=(64, 64, 3), dtype=np.uint8)
    whole = saved(PIL.Image.fromarray(noise), format).getvalue()
    for share in (0.5, 0.9):
        assert "damaged" in reason(io.BytesIO(whole[: int(share * len(whole))]))
    for length in (1, 4, 10, 20, 30):
        assert reason(io.BytesIO(whole[:length]))


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(["JPEG", "PNG", "GIF", "TIFF", "WEBP", "ICO"]), st.data())
def test_damaged_files_give_an_image_or_the_one_error(format: str, data: st.DataObject) -> None:
    whole = bytearray(saved(PIL.Image.fromarray(COLOURS), format).getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(UnreadableImageError):
        assert open_image(io.BytesIO(bytes(whole))).mode == "RGB"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty (0 bytes)"),
        (
            b"<!DOCTYPE html>\n<title>404</title>",
            "is text, not an image (it starts with '<!DOCTYPE html> <title>404</ti')",
        ),
        (b"\xc3\xa9" * 400, "is text, not an image"),
        (b"x" + b"\xc3\xa9" * 400, "is text, not an image"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        (b"\0" * 5000, "zero bytes"),
        (b"PK\x03\x04\x88\xff" * 20, "is not an image in a usual format"),
        (b"\x89PNG\r\n\x1a\n", "is not an image in a usual format (JPEG, PNG, TIFF, WebP ...), or is damaged"),
        (b"a\x1b[31mred", "is not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", "PostScript"),
    ],
)
def test_what_is_no_image(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(content)
    assert said in reason(path)


def test_broken_checksum() -> None:
    whole = bytearray(saved(PIL.Image.fromarray(COLOURS)).getvalue())
    whole[whole.index(b"IHDR") + 13] ^= 1
    assert reason(io.BytesIO(bytes(whole)))


def test_nothing_to_open(tmp_path: Path) -> None:
    assert reason(tmp_path / "absent.png") == "cannot be read (No such file or directory)"
    assert reason(tmp_path) == "is a folder"
    assert "null" in reason(Path("a\0b"))
    (tmp_path / "loop").symlink_to("loop")
    assert "symbolic links" in reason(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    assert reason(tmp_path / "pipe") == "is not a regular file (a FIFO, socket or device)"
    assert "not a regular file" in reason(Path("/dev/zero"))
    if os.geteuid() != 0:
        locked = tmp_path / "locked.png"
        locked.write_bytes(b"x")
        locked.chmod(0)
        assert reason(locked) == "cannot be read (Permission denied)"


def test_no_pixels() -> None:
    with pytest.raises(UnreadableImageError, match="has no pixels \\(0 x 5\\)"):
        to_rgb(PIL.Image.new("RGB", (0, 5)))
    with pytest.raises(UnreadableImageError, match="has no pixels"):
        to_rgb(PIL.Image.new("I;16", (5, 0)))


def test_memory_that_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise MemoryError

    monkeypatch.setattr(PIL.Image.Image, "convert", full)
    assert reason(saved(PIL.Image.fromarray(COLOURS))) == "does not fit in memory: make it smaller"


def test_error_is_one_printable_line_and_survives_pickling() -> None:
    error = UnreadableImageError("a\nb\x1b[31m\udc80")
    assert error.reason == "a b?[31m?"
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.reason) == (UnreadableImageError, error.reason)


# --- warnings --------------------------------------------------------------------------------------


def test_silence_ends_and_concerns_one_thread() -> None:
    inside, leave = threading.Event(), threading.Event()

    def silent() -> None:
        with silenced_warnings(), silenced_warnings():
            warnings.warn("hidden", UserWarning, stacklevel=1)
            inside.set()
            leave.wait(10)
            warnings.warn("hidden", UserWarning, stacklevel=1)

    thread = threading.Thread(target=silent)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        thread.start()
        assert inside.wait(10)
        warnings.warn("seen", UserWarning, stacklevel=1)
        leave.set()
        thread.join()
        with silenced_warnings():
            pass
        warnings.warn("seen again", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in seen] == ["seen", "seen again"]


def test_filters_do_not_pile_up() -> None:
    for _ in range(3):
        with silenced_warnings():
            pass
    before = len(warnings.filters)
    with pytest.raises(KeyError), silenced_warnings():
        raise KeyError
    with pytest.raises(UserWarning, match="loud"):
        warnings.warn("loud", UserWarning, stacklevel=1)
    assert len(warnings.filters) == before


def test_pillow_is_imported_on_use_only() -> None:
    code = (
        "import sys, moevoprune.features, moevoprune.features.decoding, moevoprune.features.images\n"
        "print([m for m in ('PIL', 'PIL.Image', 'torchvision') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_upright_table_is_pillows() -> None:
    image = PIL.Image.fromarray(COLOURS)
    np.testing.assert_array_equal(UPRIGHT[6](COLOURS), np.asarray(image.transpose(Transpose.ROTATE_270)))
    np.testing.assert_array_equal(UPRIGHT[7](COLOURS), np.asarray(image.transpose(Transpose.TRANSVERSE)))
