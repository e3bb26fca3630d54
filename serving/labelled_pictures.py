"""Copies of pictures with their class written below."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from serving.answers import Prediction
from serving.image_files import STDIN, ImageFile

MIN_WIDTH = 256
"""Pixels; a smaller picture is enlarged by a whole factor, so that CIFAR-10's can be recognized and the text fits."""

CAPTION_HEIGHT = 32
FONT_SIZE = 18


def draw(content: bytes, caption: str) -> Image.Image:
    """The picture, upright as the model sees it, above a strip with a caption.

    Args:
        content: an encoded image file; of an animation the first frame is taken.
        caption: fits a line.

    Returns:
        An RGB image, 256 pixels wide or wider.

    Raises:
        ValueError: Pillow cannot read the file.
    """
    try:
        with Image.open(io.BytesIO(content)) as file:
            picture = ImageOps.exif_transpose(file).convert("RGB")
    except Exception as error:  # Pillow raises nearly anything on damaged data
        raise ValueError(f"it cannot be drawn: {error}") from error
    factor = max(1, -(-MIN_WIDTH // picture.width))
    picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    labelled = Image.new("RGB", (picture.width, picture.height + CAPTION_HEIGHT), "white")
    labelled.paste(picture)
    position = (picture.width / 2, picture.height + CAPTION_HEIGHT / 2)
    ImageDraw.Draw(labelled).text(position, caption, "black", ImageFont.load_default(FONT_SIZE), anchor="mm")
    return labelled


def save(file: ImageFile, prediction: Prediction, folder: Path) -> Path:
    """Writes `<name>.labelled.png` into a folder, which is made when absent; never over another file.

    Raises:
        ValueError: Pillow cannot read the file.
        OSError: the folder cannot be written to.
    """
    picture = draw(file.content, f"{prediction.label} {prediction.score:.1%}")
    folder.mkdir(parents=True, exist_ok=True)
    stem = "stdin" if file.name == STDIN else Path(file.name).stem
    path = folder / f"{stem}.labelled.png"
    number = 2
    while path.exists():  # files of one name from several folders
        path = folder / f"{stem}-{number}.labelled.png"
        number += 1
    picture.save(path)
    return path
