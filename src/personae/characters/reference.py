"""One picture of a character with its caption."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from personae.characters.image_files import alpha_mask, flatten, load_mask, load_picture


@dataclass(frozen=True, slots=True)
class Reference:
    """One picture of the character as the user brought it.

    Attributes:
        path: the picture file.
        caption: what the user wrote about it, or None.
        repeats: how often one pass over the set shows it, at least 1.
        mask: file of the same proportions in which white marks the character, or None.
        loss_weight: factor on the loss of this picture, above 0.
        mask_inverted: black marks the character in the mask file.
        caption_file: where the caption was read, or None.
    """

    path: Path
    caption: str | None
    repeats: int = 1
    mask: Path | None = None
    loss_weight: float = 1.0
    mask_inverted: bool = False
    caption_file: Path | None = None

    def image(self) -> Image.Image:
        """Return the picture upright, in 8-bit sRGB, transparent pixels on `BACKDROP`.

        Raises:
            CharacterError: the file is missing, damaged, animated, too large or transparent
                everywhere.
        """
        return flatten(load_picture(self.path))

    def mask_image(self) -> Image.Image | None:
        """Return where the character is, mode "L", the size of `image()`; None if not known.

        A mask file goes before the alpha channel of the picture.

        Raises:
            CharacterError: the mask is unreadable, of other proportions, or black everywhere.
        """
        return self.mask_of(load_picture(self.path))

    def mask_of(self, picture: Image.Image) -> Image.Image | None:
        """Return `mask_image` of the picture, decoded already by `load_picture`."""
        if self.mask is None:
            return alpha_mask(picture)
        return load_mask(self.mask, picture.size, inverted=self.mask_inverted)
