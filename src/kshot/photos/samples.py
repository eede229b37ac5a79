"""Pictures to try a classifier on without a download: signs, drawn as if photographed on cards before two photographs.

The signs are characters of DejaVu Sans, which matplotlib ships; the backgrounds are parts of the two photographs that
scikit-learn ships (china.jpg and flower.jpg, CC BY 2.0). So they are made, and no photographs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.font_manager import FontProperties, findfont
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont
from sklearn.datasets import load_sample_image

from kshot.files import write_atomically

SIGNS = {"anchor": "⚓", "plane": "✈", "scissors": "✂", "snowman": "☃", "telephone": "☎", "umbrella": "☂"}
_SIZE = 640, 480
_CARD = 400
_ORIENTATIONS = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}  # that a camera may have noted


def draw(folder: Path, *, examples: int = 5, new: int = 10, seed: int = 0) -> tuple[Path, Path]:
    """Draw JPEG files into ``folder/examples`` and ``folder/new``, each with one folder per sign; returns both.

    Parameters
    ----------
    folder
        Where they go; files that are there already are written again.
    examples, new
        How many pictures of each sign.
    seed
        Names the pictures.
    """
    font = ImageFont.truetype(findfont(FontProperties(family="DejaVu Sans")), 330)
    scenes = [Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]
    for part, count in (("examples", examples), ("new", new)):
        for place, (name, sign) in enumerate(SIGNS.items()):
            for number in range(count):
                generator = np.random.default_rng([seed, place, number, part == "new"])
                picture = _picture(sign, font, scenes[generator.integers(2)], generator)
                _save(picture, folder / part / name / f"IMG_{number:04d}.JPG", generator)
    return folder / "examples", folder / "new"


def _picture(
    sign: str, font: ImageFont.FreeTypeFont, scene: Image.Image, generator: np.random.Generator
) -> Image.Image:
    """One sign on a card, turned, lit and a little out of focus, before a part of a scene."""
    width, height = (int(length * generator.uniform(0.5, 0.9)) for length in scene.size)
    left, top = int(generator.integers(scene.width - width)), int(generator.integers(scene.height - height))
    picture = scene.crop((left, top, left + width, top + height)).resize(_SIZE, Image.Resampling.BILINEAR)
    paper, ink = generator.integers(170, 256, 3), generator.integers(0, 110, 3)
    card = Image.new("RGBA", (_CARD, _CARD), (*map(int, paper), 255))
    ImageDraw.Draw(card).text((_CARD / 2, _CARD / 2), sign, font=font, fill=(*map(int, ink), 255), anchor="mm")
    card = card.resize((int(_CARD * generator.uniform(0.8, 1.05)), int(_CARD * generator.uniform(0.8, 1.05))))
    card = card.rotate(generator.uniform(-15, 15), Image.Resampling.BILINEAR, expand=True)
    left, top = (int((length - side) / 2 + generator.normal(0, 15)) for length, side in zip(_SIZE, card.size))
    picture.paste(card, (left, top), card)
    picture = picture.filter(ImageFilter.GaussianBlur(generator.uniform(0, 1.5)))
    picture = ImageEnhance.Brightness(picture).enhance(generator.uniform(0.6, 1.3))
    noisy = np.asarray(picture, np.float64) + generator.normal(0, generator.uniform(2, 12), (*_SIZE[::-1], 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def _save(picture: Image.Image, path: Path, generator: np.random.Generator) -> None:
    """As a phone does, which stores what the sensor saw and notes how it was held."""
    orientation = int(generator.choice(list(_ORIENTATIONS)))
    turn = _ORIENTATIONS[orientation]
    stored = picture if turn is None else picture.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    write_atomically(path, lambda file: stored.save(file, "JPEG", quality=90, exif=exif))
