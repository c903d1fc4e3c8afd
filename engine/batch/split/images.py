"""Images as arrays."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any, TypeAlias

from inferay.engine.storage.read_errors import ReadError
from inferay.errors import UserCodeError

if TYPE_CHECKING:
    import numpy

    Image: TypeAlias = numpy.ndarray[Any, Any]


def read_image(file: IO[bytes], path: str) -> Image:
    """Return an image as an array of bytes, (1, height, width) or (1, height, width, channels).

    Channels are the file's own; colours of a palette are red, green and blue.

    Args:
        file: Its bytes.
        path: How it is named in an error.

    Raises:
        ReadError: It is no image that can be read.
        UserCodeError: Pillow is not installed.
    """
    import numpy

    try:
        import PIL.Image
    except ModuleNotFoundError:
        raise UserCodeError(
            f"reading the image '{path}' needs the package 'pillow', which is not installed where "
            "the model is scored; give the deployment an environment that has it",
            code="PackageMissing",
        ) from None
    try:
        with PIL.Image.open(file) as image:
            image.load()
            plain = {"P": "RGB", "1": "L"}.get(image.mode)
            return numpy.asarray(image.convert(plain) if plain else image)[None]
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as error:
        raise ReadError(
            f"'{path}' is no image that can be read: {error}; write it anew, or take it out of "
            "the input", target=path,
        ) from error
