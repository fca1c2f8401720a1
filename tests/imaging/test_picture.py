"""Pictures in: bit depths, palettes, alpha, and formats that cannot be labels."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from medmargin.errors import DataError
from medmargin.imaging import read_channels, read_image, read_label
from medmargin.imaging.expansion import DEFLATE_RATIO


@pytest.fixture
def gray(rng):
    return rng.integers(0, 255, (5, 8)).astype(np.uint8)


@pytest.fixture
def colours(rng):
    return rng.integers(0, 255, (5, 8, 3)).astype(np.uint8)


def test_columns_come_first_rows_second_and_the_unit_is_pixels(tmp_path, gray):
    Image.fromarray(gray).save(tmp_path / "a.png")
    volume = read_image(tmp_path / "a.png")
    assert volume.voxels.shape == (1, 8, 5, 1)
    assert volume.voxels[0, 7, 2, 0] == gray[2, 7]
    assert (volume.dims, volume.grid.unit, volume.format) == (2, "px", "picture")
    assert np.array_equal(volume.affine, np.eye(4))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_row_12_colours_are_three_channels_and_gray_on_request(tmp_path, colours, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(colours).save(path)
    assert np.array_equal(read_image(path).voxels[..., 0], colours.transpose(2, 1, 0))
    luma = np.asarray(Image.fromarray(colours).convert("L"))
    assert np.abs(read_image(path, to_gray=True).voxels[0, ..., 0].T.astype(int) - luma).max() <= 1


def test_row_12_colours_where_gray_is_expected_are_refused(tmp_path, colours):
    Image.fromarray(colours).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"found 3 channels, expected 1.*--to-gray"):
        read_channels([tmp_path / "a.png"], names=("ultrasound",))
    assert read_channels([tmp_path / "a.png"], names=("ultrasound",), to_gray=True).channels == 1
    assert read_channels([tmp_path / "a.png"], names=("R", "G", "B")).channels == 3


def test_row_12_alpha_is_dropped_with_a_warning(tmp_path, colours, gray):
    Image.fromarray(np.dstack([colours, gray])).save(tmp_path / "rgba.png")
    Image.fromarray(np.dstack([gray, gray]), mode="LA").save(tmp_path / "la.png")
    for name, expected in (("rgba.png", colours.transpose(2, 1, 0)), ("la.png", gray.T[None])):
        volume = read_image(tmp_path / name)
        assert np.array_equal(volume.voxels[..., 0], expected)
        assert "alpha" in volume.warnings[0]


def test_row_12_a_colour_picture_is_no_label(tmp_path, colours):
    Image.fromarray(colours).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="3 channels"):
        read_label(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_row_13_16_bits_stay_16_bits(tmp_path, rng, suffix):
    deep = rng.integers(0, 65535, (5, 8)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / f"g{suffix}"), deep)
    assert np.array_equal(read_image(tmp_path / f"g{suffix}").voxels[0, ..., 0].T, deep)
    deep_colours = rng.integers(0, 65535, (5, 8, 3)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / f"c{suffix}"), deep_colours[..., ::-1])
    volume = read_image(tmp_path / f"c{suffix}")
    assert np.array_equal(volume.voxels[..., 0], deep_colours.transpose(2, 1, 0))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_row_13_palette_labels_are_their_indices(tmp_path, rng, suffix):
    indices = rng.integers(0, 4, (5, 8)).astype(np.uint8)
    image = Image.fromarray(indices, mode="P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    path = tmp_path / f"a{suffix}"
    image.save(path)
    label = read_label(path)
    assert np.array_equal(label.voxels[0, ..., 0].T, indices)
    assert "indices" in label.warnings[0]
    seen = read_image(path)
    assert np.array_equal(seen.voxels[:, :, :, 0], np.asarray(image.convert("RGB")).transpose(2, 1, 0))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_row_13_small_bit_depths_of_labels_are_not_stretched(tmp_path, rng, bits):
    values = rng.integers(0, 2**bits, (5, 8)).astype(np.uint8)
    if bits == 1:
        Image.fromarray(values.astype(bool)).save(tmp_path / "a.png")
    else:
        rows = b"".join(b"\0" + np.packbits(np.unpackbits(row[:, None], axis=1)[:, -bits:]).tobytes() for row in values)
        chunks = [
            (b"IHDR", struct.pack(">IIBBBBB", 8, 5, bits, 0, 0, 0, 0)),
            (b"IDAT", zlib.compress(rows)),
            (b"IEND", b""),
        ]
        data = b"".join(
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
            for kind, body in chunks
        )
        (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    assert np.array_equal(read_label(tmp_path / "a.png").voxels[0, ..., 0].T, values)


@pytest.mark.parametrize("name", ["a.jpg", "a.jpeg"])
def test_row_14_jpeg_labels_are_refused(tmp_path, gray, name):
    Image.fromarray(gray).save(tmp_path / name)
    with pytest.raises(DataError, match="lossy"):
        read_label(tmp_path / name)
    assert read_image(tmp_path / name).voxels.shape == (1, 8, 5, 1)


def test_row_14_a_jpeg_called_png_is_still_no_label(tmp_path, gray):
    Image.fromarray(gray).save(tmp_path / "a.png", format="JPEG")
    with pytest.raises(DataError, match="lossy"):
        read_label(tmp_path / "a.png")


def test_row_14_a_tiff_with_jpeg_inside_is_no_label(tmp_path, gray):
    Image.fromarray(gray).save(tmp_path / "a.tif", compression="jpeg")
    with pytest.raises(DataError, match="lossy TIFF"):
        read_label(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif").channels == 1


@pytest.mark.parametrize("packing", [None, "tiff_lzw", "packbits", "tiff_adobe_deflate"])
def test_tiff_packings_are_read(tmp_path, gray, packing):
    Image.fromarray(gray).save(tmp_path / "a.tif", compression=packing)
    assert np.array_equal(read_label(tmp_path / "a.tif").voxels[0, ..., 0].T, gray)


def test_real_numbers_and_separate_planes_in_a_tiff(tmp_path, rng):
    values = rng.random((3, 5, 8)).astype(np.float32)
    tifffile.imwrite(tmp_path / "a.tif", values, planarconfig="separate", photometric="rgb")
    assert np.array_equal(read_image(tmp_path / "a.tif").voxels[..., 0], values.transpose(0, 2, 1))


def test_row_10_pages_of_a_tiff_need_an_index(tmp_path, rng):
    pages = rng.integers(0, 9, (4, 5, 8)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pages, photometric="minisblack")
    with pytest.raises(DataError, match="4 pages"):
        read_image(tmp_path / "a.tif")
    assert np.array_equal(read_image(tmp_path / "a.tif", volume_index=2).voxels[0, ..., 0].T, pages[2])
    with pytest.raises(DataError, match="from 0 to 3"):
        read_image(tmp_path / "a.tif", volume_index=4)


def test_white_as_zero_is_told(tmp_path, gray):
    tifffile.imwrite(tmp_path / "a.tif", gray, photometric="miniswhite")
    volume = read_image(tmp_path / "a.tif")
    assert np.array_equal(volume.voxels[0, ..., 0].T, gray)
    assert "0 as white" in volume.warnings[0]


def test_an_exif_rotation_is_told(tmp_path, gray):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(gray).save(tmp_path / "a.jpg", exif=exif)
    volume = read_image(tmp_path / "a.jpg")
    assert volume.voxels.shape == (1, 8, 5, 1)
    assert "EXIF" in volume.warnings[0]


def test_damaged_pictures_are_refused(tmp_path, colours):
    for suffix in (".png", ".jpg", ".tif"):
        path = tmp_path / f"a{suffix}"
        Image.fromarray(colours).save(path)
        path.write_bytes(path.read_bytes()[:60])
        with pytest.raises(DataError, match="damaged"):
            read_image(path)


def test_row_36_a_png_bomb_is_refused_before_memory_is_spent(tmp_path):
    side = 17000  # 276 MiB of zeros
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    body = b"\0" * (side * side // DEFLATE_RATIO)
    chunks = [(b"IHDR", header), (b"IDAT", body), (b"IEND", b"")]
    data = b"".join(
        struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part)) for kind, part in chunks
    )
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    with pytest.raises(DataError, match="bomb"):
        read_image(tmp_path / "a.png")


def test_real_pictures_equal_what_pillow_reads(data_root):
    for path in (
        data_root / "Dataset901_BUSI/imagesTr",
        data_root / "Dataset904_DSB2018/instancesTr",
        data_root / "Dataset903_STARE/imagesTr",
    ):
        file = sorted(path.glob("*.png"))[0]
        with Image.open(file) as image:
            pixels = np.asarray(image)
        assert np.array_equal(read_image(file).voxels[..., 0], pixels.reshape(*pixels.shape[:2], -1).transpose(2, 1, 0))
