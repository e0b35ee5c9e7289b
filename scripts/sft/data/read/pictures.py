"""Pictures as encoded bytes: decode, invert, encode as PNG, digest of the pixels.

A picture is what a person sees who opens the file, and what `datasets.Image` and transformers' `load_image` make of an
upright 8-bit one: turned as its EXIF says; on white where it is transparent; 16 bits scaled to 8. Refused by name is
what has no such reading: several frames or pages, floating-point or other numbers without a range. Colours are those of
the file: ICC profiles and gamma are not applied, as nobody applies them in training.
"""

import hashlib
import io

from PIL import Image, ImageOps

# The limit that counts is the data set's maximum_pixels, which is looked at before a picture is decoded.
Image.MAX_IMAGE_PIXELS = None
# EXIF orientations that lie on their side.
TURNED = (5, 6, 7, 8)
ORIENTATION = 0x0112


def decode(encoded: bytes) -> Image.Image:
    """The RGB picture of PNG, JPEG, ... bytes; ValueError when they are no complete picture, or no single one."""
    try:
        picture = Image.open(io.BytesIO(encoded))
        frames = getattr(picture, "n_frames", 1)
        # A stereo photograph (MPO) has a picture and others of the same thing; the first is the one that is shown.
        if frames == 1 or picture.format == "MPO":
            return _seen(ImageOps.exif_transpose(picture))
    except (
        Exception
    ) as error:  # Pillow's readers raise what a broken file makes happen: OSError, SyntaxError, struct.error…
        raise ValueError(_fault(encoded, "no readable picture", error)) from None
    raise ValueError(_several(picture.format, frames))


def size(encoded: bytes) -> tuple[int, int]:
    """(width, height) in pixels as seen, read from the header only; ValueError when there is none."""
    try:
        picture = Image.open(io.BytesIO(encoded))
        width, height = picture.size
        # Pillow turns TIFF by itself.
        turned = picture.format != "TIFF" and picture.getexif().get(ORIENTATION) in TURNED
        return (height, width) if turned else (width, height)
    except Exception as error:
        raise ValueError(_fault(encoded, "no picture", error)) from None


def _seen(picture: Image.Image) -> Image.Image:
    """A picture of any mode as RGB; ValueError for a mode whose numbers have no range."""
    if picture.mode.startswith("I;16"):
        return _eight_bits(picture)
    if picture.mode == "I" and picture.format == "PNG":
        return _eight_bits(picture)  # as Pillow before 11 opens 16-bit grey
    if picture.mode in ("I", "F"):
        raise ValueError(_without_range(picture.mode))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture.convert("RGB")


def _eight_bits(picture: Image.Image) -> Image.Image:
    """16-bit grey in 8 bits: 65535 is white, as in every viewer."""
    import numpy as np

    values = np.asarray(picture).astype(np.uint32)
    return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")


# What predictions keep of such a row: called, not written where it is raised, so that its text counts as code.
def _fault(encoded: bytes, what: str, error: Exception) -> str:
    return f"{len(encoded)} bytes that are {what} ({error})"


def _several(kind: str | None, frames: int) -> str:
    return f"{kind} of {frames} frames or pages; which one is meant is not said. Save the one that is to be seen"


def _without_range(mode: str) -> str:
    numbers = "floating-point numbers" if mode == "F" else "32-bit whole numbers"
    return f"{numbers}, for which no range of brightness is known. Save it with 8 or 16 bits"


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
