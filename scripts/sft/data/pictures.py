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
        raise ValueError(f"{len(encoded)} bytes that are no readable picture ({error})") from None


def size(encoded: bytes) -> tuple[int, int]:
    """(width, height) in pixels, read from the header only; ValueError when there is none."""
    try:
        return Image.open(io.BytesIO(encoded)).size
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{len(encoded)} bytes that are no picture ({error})") from None


def png(picture: Image.Image) -> bytes:
    """PNG bytes of a picture, without metadata: equal pixels give equal bytes (under one Pillow version)."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def invert(encoded: bytes) -> bytes:
    """PNG bytes of the picture with every RGB value v replaced by 255 - v."""
    return png(ImageOps.invert(decode(encoded)))


def pixel_digest(encoded: bytes) -> str:
    """sha256 of size and RGB pixels, which is what a model sees: the same for every lossless encoding."""
    picture = decode(encoded)
    return hashlib.sha256(b"%d %d\n" % picture.size + picture.tobytes()).hexdigest()
