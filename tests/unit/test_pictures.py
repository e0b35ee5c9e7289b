"""Pictures: pixels, not files, say whether two pictures are the same."""

import io

import pytest
from PIL import Image

from sft.data.read import pictures


def pixel_digest(encoded: bytes) -> bytes:
    return pictures.pixels_digest(pictures.decode(encoded))


def picture(seed: int = 0, mode: str = "RGB") -> Image.Image:
    return Image.frombytes("RGB", (4, 2), bytes((seed + 7 * i) % 256 for i in range(24))).convert(mode)


def encoded(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def test_png_round_trip_and_inversion():
    original = picture()
    assert pictures.decode(pictures.png(original)).tobytes() == original.tobytes()
    inverted = pictures.invert(pictures.png(original))
    assert pictures.decode(inverted).tobytes() == bytes(255 - value for value in original.tobytes())
    assert pixel_digest(pictures.invert(inverted)) == pixel_digest(pictures.png(original))


def test_the_digest_is_of_pixels_not_of_files():
    fast, small = (encoded(picture(), format="PNG", compress_level=level) for level in (0, 9))
    assert fast != small
    assert pixel_digest(fast) == pixel_digest(small)
    assert pixel_digest(fast) == pixel_digest(encoded(picture(), format="WEBP", lossless=True))
    assert pixel_digest(fast) != pixel_digest(pictures.png(picture(1)))


def test_the_digest_tells_shapes_with_the_same_bytes():
    wide, tall = Image.new("RGB", (4, 2)), Image.new("RGB", (2, 4))
    assert wide.tobytes() == tall.tobytes()
    assert pixel_digest(pictures.png(wide)) != pixel_digest(pictures.png(tall))


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"GIF", lambda data: b""])
def test_what_is_no_picture_is_refused(damage):
    with pytest.raises(ValueError, match="picture"):
        pictures.decode(damage(encoded(picture(), format="PNG")))


def test_size_reads_the_header():
    assert pictures.size(encoded(picture(), format="PNG")) == (4, 2)
    with pytest.raises(ValueError, match="no picture"):
        pictures.size(b"nothing")
