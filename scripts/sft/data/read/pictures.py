"""Pictures as encoded bytes: decode, invert, encode as PNG, digest of the pixels."""

import hashlib
import io

from PIL import Image, ImageOps, UnidentifiedImageError


def decode(encoded: bytes) -> Image.Image:
    """The RGB picture of PNG, JPEG, ... bytes; ValueError when they are no complete picture."""
    try:
        return Image.open(io.BytesIO(encoded)).convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        # Pillow reports a truncated file as OSError and a broken PNG chunk as SyntaxError.
        raise ValueError(_fault(encoded, "no readable picture", error)) from None


def size(encoded: bytes) -> tuple[int, int]:
    """(width, height) in pixels, read from the header only; ValueError when there is none."""
    try:
        return Image.open(io.BytesIO(encoded)).size
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(_fault(encoded, "no picture", error)) from None


def _fault(encoded: bytes, what: str, error: Exception) -> str:
    """What predictions keep of such a row: called, not written where it is raised, so that its text counts as code."""
    return f"{len(encoded)} bytes that are {what} ({error})"


def png(picture: Image.Image) -> bytes:
    """PNG bytes of a picture, without metadata: equal pixels give equal bytes (under one Pillow version)."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def invert(encoded: bytes) -> bytes:
    """PNG bytes of the picture with every RGB value v replaced by 255 - v."""
    return png(ImageOps.invert(decode(encoded)))


def pixels_digest(picture: Image.Image) -> bytes:
    """sha256 of size and RGB pixels, which is what a model sees: the same for every lossless encoding."""
    return hashlib.sha256(b"%d %d\n" % picture.size + picture.tobytes()).digest()


# Below so many pixels a side there is too little in a picture to tell a copy from another one of its kind.
SMALLEST_LOOK = 32


def difference_hash(picture: Image.Image) -> int | None:
    """64 bits of how a picture looks: which of 8 x 8 grey values are darker than their right neighbours.

    None for a picture of less than SMALLEST_LOOK pixels a side.

    The "dHash" of N. Krawetz (2013, https://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html):
    scaled, recompressed or slightly recoloured copies of a photograph differ in a few bits. Drawings with large flat
    areas have few edges and look alike to it.
    """
    if min(picture.size) < SMALLEST_LOOK:
        return None
    grey = picture.convert("L").resize((9, 8), Image.Resampling.BOX).tobytes()
    bits = 0
    for row in range(0, 72, 9):
        for column in range(row, row + 8):
            bits = bits << 1 | (grey[column] < grey[column + 1])
    return bits
