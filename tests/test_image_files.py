"""Patches from image files: what is read exactly, and what is refused with which words."""

import random
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ml_core.data.image_files import IMAGE_SUFFIXES, read_image
from ml_core.errors import DataError

SIZE = (8, 6)  # height, width


@pytest.fixture
def patch() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def refusal(path: Path, size: tuple[int, int] = SIZE) -> str:
    with pytest.raises(DataError) as caught:
        read_image(path, size)
    assert str(path) in str(caught.value)
    return str(caught.value)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def png(width: int, height: int, bits: int, colour: int, rows: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + body + png_chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".PNG"])
def test_lossless_formats_give_the_pixels_to_the_bit(tmp_path, patch, suffix):
    path = tmp_path / f"patch{suffix}"
    Image.fromarray(patch).save(path)
    found = read_image(path, SIZE)
    assert found.dtype == np.uint8
    assert np.array_equal(found, patch)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits"])
def test_compressed_tiff_gives_the_pixels_to_the_bit(tmp_path, patch, compression):
    Image.fromarray(patch).save(tmp_path / "patch.tif", compression=compression)
    assert np.array_equal(read_image(tmp_path / "patch.tif", SIZE), patch)


def test_jpeg_is_near(tmp_path):
    patch = np.full((*SIZE, 3), (180, 90, 150), dtype=np.uint8)
    Image.fromarray(patch).save(tmp_path / "patch.jpg", quality=95)
    found = read_image(tmp_path / "patch.jpg", SIZE)
    assert np.abs(found.astype(int) - patch).max() <= 3


def test_grey_palette_and_opaque_alpha_become_rgb(tmp_path, patch):
    grey = Image.fromarray(patch[..., 0])
    grey.save(tmp_path / "grey.png")
    assert np.array_equal(read_image(tmp_path / "grey.png", SIZE), patch[..., :1].repeat(3, axis=2))
    palette = Image.fromarray(patch).quantize(16)
    palette.save(tmp_path / "palette.png")
    assert np.array_equal(
        read_image(tmp_path / "palette.png", SIZE), np.asarray(palette.convert("RGB"))
    )
    opaque = np.dstack([patch, np.full(SIZE, 255, np.uint8)])
    Image.fromarray(opaque).save(tmp_path / "opaque.png")
    assert np.array_equal(read_image(tmp_path / "opaque.png", SIZE), patch)


def test_transparency_is_refused(tmp_path, patch):
    alpha = np.full(SIZE, 255, np.uint8)
    alpha[3, 3] = 254
    Image.fromarray(np.dstack([patch, alpha])).save(tmp_path / "rgba.png")
    assert "transparent pixels; a patch must be opaque" in refusal(tmp_path / "rgba.png")
    palette = Image.fromarray(patch).quantize(16)
    palette.save(tmp_path / "palette.png", transparency=int(np.asarray(palette)[0, 0]))
    assert "transparent pixels" in refusal(tmp_path / "palette.png")


def test_another_size_is_refused_not_scaled(tmp_path, patch):
    Image.fromarray(patch).save(tmp_path / "patch.png")
    message = refusal(tmp_path / "patch.png", (6, 8))
    assert "has 6 x 8 pixels; the model takes patches of 8 x 6" in message


def test_sixteen_bits_a_channel_are_refused_though_pillow_calls_them_rgb(tmp_path):
    height, width = SIZE
    (tmp_path / "rgb.png").write_bytes(
        png(width, height, 16, 2, (b"\0" + bytes(6 * width)) * height)
    )
    assert Image.open(tmp_path / "rgb.png").mode == "RGB"
    assert "16 bits a channel; allowed is 8-bit RGB or grey" in refusal(tmp_path / "rgb.png")
    Image.fromarray(np.zeros(SIZE, np.uint16)).save(tmp_path / "grey.png")
    assert "allowed is 8-bit RGB or grey" in refusal(tmp_path / "grey.png")
    Image.fromarray(np.zeros(SIZE, np.float32)).save(tmp_path / "float.tif")
    assert "has the pixel format F" in refusal(tmp_path / "float.tif")


def test_several_images_in_one_file_are_refused(tmp_path, patch):
    image = Image.fromarray(patch)
    image.save(tmp_path / "many.tif", save_all=True, append_images=[image, image])
    assert "holds 3 images; save each patch in a file of its own" in refusal(tmp_path / "many.tif")


def test_what_is_no_png_jpeg_or_tiff_is_refused_whatever_its_name(tmp_path, patch):
    Image.fromarray(patch).save(tmp_path / "patch.gif")
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 8\n%%EndComments\n"
    contents = {
        "gif": (tmp_path / "patch.gif").read_bytes(),
        "eps": eps,
        "text": b"hello",
        "empty": b"",
    }
    for name, content in contents.items():
        path = tmp_path / f"{name}.png"
        path.write_bytes(content)
        assert "is not an image that can be read; allowed: PNG, JPEG, TIFF." in refusal(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert "there is no file" in refusal(tmp_path / "absent.png")
    (tmp_path / "folder.png").mkdir()
    assert "cannot be read" in refusal(tmp_path / "folder.png")


def test_an_image_that_would_fill_the_memory_is_refused(tmp_path):
    (tmp_path / "bomb.png").write_bytes(png(100_000, 100_000, 8, 2, b""))
    assert "cannot be read" in refusal(tmp_path / "bomb.png")


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_a_damaged_file_is_read_or_refused_and_never_another_error(tmp_path, patch, suffix):
    path = tmp_path / f"patch{suffix}"
    Image.fromarray(patch).save(path)
    whole = path.read_bytes()
    rng = random.Random(suffix)
    refused = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about damage as well
        for _ in range(150):
            damaged = bytearray(whole)
            for _ in range(rng.randrange(1, 5)):
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
            if rng.random() < 0.2:
                del damaged[rng.randrange(len(damaged)) :]
            path.write_bytes(damaged)
            try:
                assert read_image(path, SIZE).shape == (*SIZE, 3)
            except DataError:
                refused += 1
    assert refused > 10
