"""Every mode and container that Pillow can give: decoded as a person sees it, or refused by name.

Tests: sft.data.read.pictures
"""

import contextlib
import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sft.data.read import pictures

WHITE, BLACK, RED = (255, 255, 255), (0, 0, 0), (255, 0, 0)
Made = Callable[[], bytes]


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def corner(mode: str, light: Any, dark: Any, size: tuple[int, int] = (12, 8)) -> Image.Image:
    """A light picture with a dark left half, so that a turn shows."""
    made = Image.new(mode, size, light)
    made.paste(dark, (0, 0, size[0] // 2, size[1]))
    return made


def sixteen(kind: str, dtype: str = "<u2") -> bytes:
    values = np.full((8, 12), 65535, dtype)
    values[:, :6] = 0
    return encoded(Image.fromarray(values), kind)


def with_transparent_palette() -> Image.Image:
    made = corner("P", 1, 0)
    made.putpalette([255, 0, 0, 255, 255, 255])
    made.info["transparency"] = 1
    return made


def frames(kind: str, count: int = 2, **options: Any) -> bytes:
    others = [Image.new("RGB", (12, 8), (n * 90, 0, 200)) for n in range(1, count)]
    return encoded(corner("RGB", WHITE, BLACK), kind, save_all=True, append_images=others, **options)


# name -> (how it is made, the colour on the left, the colour on the right)
SEEN: dict[str, tuple[Made, Any, Any]] = {
    "1": (lambda: encoded(corner("1", 1, 0), "PNG"), BLACK, WHITE),
    "L": (lambda: encoded(corner("L", 200, 10), "PNG"), (10,) * 3, (200,) * 3),
    "LA on white": (lambda: encoded(corner("LA", (0, 0), (0, 255)), "PNG"), BLACK, WHITE),
    "RGBA on white": (lambda: encoded(corner("RGBA", (0, 0, 0, 0), (255, 0, 0, 255)), "PNG"), RED, WHITE),
    "RGBA half seen": (lambda: encoded(corner("RGBA", (0, 0, 0, 128), (0, 0, 0, 255)), "PNG"), BLACK, (127,) * 3),
    "RGBA in WebP": (
        lambda: encoded(corner("RGBA", (0, 0, 0, 0), (255, 0, 0, 255)), "WEBP", lossless=True),
        *(RED, WHITE),
    ),
    "P": (lambda: encoded(corner("RGB", WHITE, RED).convert("P"), "PNG"), RED, WHITE),
    "P with transparency": (lambda: encoded(with_transparent_palette(), "PNG"), RED, WHITE),
    "P in GIF": (lambda: encoded(corner("RGB", WHITE, RED).convert("P"), "GIF"), RED, WHITE),
    "RGB with a transparent colour": (
        lambda: encoded(corner("RGB", (0, 0, 9), RED), "PNG", transparency=(0, 0, 9)),
        *(RED, WHITE),
    ),
    "CMYK": (lambda: encoded(corner("RGB", WHITE, RED).convert("CMYK"), "TIFF"), RED, WHITE),
    "CMYK as Adobe writes it": (lambda: encoded(corner("RGB", WHITE, BLACK).convert("CMYK"), "JPEG"), BLACK, WHITE),
    "YCbCr": (lambda: encoded(corner("RGB", WHITE, BLACK).convert("YCbCr"), "JPEG", quality=95), BLACK, WHITE),
    "I;16 in PNG": (lambda: sixteen("PNG"), BLACK, WHITE),
    "I;16 in TIFF": (lambda: sixteen("TIFF"), BLACK, WHITE),
    "I;16 in big-endian TIFF": (lambda: sixteen("TIFF", ">u2"), BLACK, WHITE),
    "BMP": (lambda: encoded(corner("RGB", WHITE, BLACK), "BMP"), BLACK, WHITE),
    "one frame of GIF": (lambda: frames("GIF", 1), BLACK, WHITE),
    "MPO shows its first": (lambda: frames("MPO"), BLACK, WHITE),
}


@pytest.mark.parametrize("name", SEEN)
def test_what_is_seen(name: str):
    made, left, right = SEEN[name]
    picture = pictures.decode(made())
    assert (picture.mode, picture.size) == ("RGB", (12, 8))
    for place, colour in (((1, 4), left), ((10, 4), right)):
        assert picture.getpixel(place) == pytest.approx(colour, abs=6), name


def test_sixteen_bits_keep_their_levels():
    values = (np.arange(64, dtype="<u2") * 1040).reshape(8, 8)
    picture = pictures.decode(encoded(Image.fromarray(values), "PNG"))
    assert len(set(np.asarray(picture)[..., 0].ravel().tolist())) == 64


# As a phone writes them: how the stored picture is to be turned to be upright.
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_picture_is_turned_as_its_mark_says(kind: str, orientation: int):
    from PIL import ImageOps

    upright = corner("RGB", WHITE, BLACK, (24, 16))
    upright.paste(RED, (0, 0, 6, 6))
    turned = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]  # how it was stored, by Transpose
    stored = upright if turned is None else upright.transpose(Image.Transpose(turned))
    exif = Image.Exif()
    exif[pictures.ORIENTATION] = orientation
    options = {"quality": 95} if kind in ("JPEG", "WEBP") else {}
    made = encoded(stored, kind, exif=exif, **options)
    found = pictures.decode(made)
    assert pictures.size(made) == found.size == ImageOps.exif_transpose(Image.open(io.BytesIO(made))).size == (24, 16)
    assert found.getpixel((2, 2)) == pytest.approx(RED, abs=40)
    assert found.getpixel((20, 12)) == pytest.approx(WHITE, abs=12)
    # What finds copies sees the same: the mark is gone, and the pixels are those that a model sees.
    again = pictures.decode(pictures.png(found))
    assert pictures.pixels_digest(again) == pictures.pixels_digest(found)


REFUSED: dict[str, tuple[Made, str]] = {
    "an animation": (lambda: frames("GIF", 3), "GIF of 3 frames or pages"),
    "an animated PNG": (lambda: frames("PNG", 2), "PNG of 2 frames or pages"),
    "an animated WebP": (lambda: frames("WEBP", 2), "WEBP of 2 frames or pages"),
    "several pages": (lambda: frames("TIFF", 2), "TIFF of 2 frames or pages"),
    "floating point": (lambda: encoded(Image.new("F", (4, 4), 0.5), "TIFF"), "floating-point numbers"),
    "32-bit numbers": (lambda: encoded(Image.new("I", (4, 4), 70000), "TIFF"), "32-bit whole numbers"),
    "nothing": (lambda: b"", "0 bytes that are no readable picture"),
    "a text": (lambda: b"<html>not found</html>", "no readable picture"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str):
    made, reason = REFUSED[name]
    with pytest.raises(ValueError, match=reason):
        pictures.decode(made())


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_a_cut_or_damaged_file_is_refused_and_nothing_else_happens(kind: str):
    """Cut at any place: no picture with a grey rest, and no error of another kind."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8))
    whole = encoded(noise, kind)
    for length in range(0, len(whole) - 1, max(1, len(whole) // 40)):
        try:
            made = pictures.decode(whole[:length])
        except ValueError:
            continue
        assert made.tobytes() == pictures.decode(whole).tobytes(), f"{length} of {len(whole)} bytes"
    damaged = bytearray(whole)
    for place in range(8, len(whole), max(1, len(whole) // 40)):
        damaged[place] ^= 0xFF
        with contextlib.suppress(ValueError):
            pictures.decode(bytes(damaged))
        damaged[place] ^= 0xFF


def test_the_limit_of_pixels_is_the_data_sets():
    """Pillow warns of pictures above 89 million pixels and refuses some; a warning is an error in some programs."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pictures.size(encoded(Image.new("1", (20_000, 10_000)), "PNG")) == (20_000, 10_000)
