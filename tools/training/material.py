"""What is trained on: photographs and pictures of screens, by folder, none of which the bench judges."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image

__all__ = ["PHOTOS", "SCREENS", "Material", "find_material", "open_picture"]

PHOTOS = ("Kodak24", "gb82", "lomiri", "skimage")
"""Folders of photographs: unrestricted use, CC0, CC-BY-4.0 and CC0, and public domain and CC0 in this order."""
SCREENS = ("gb82_screen",)
"""Folders of pictures of screens: CC0."""
NAMES = {
    "lomiri": (
        "Picture_0B_by_freespace.jpg",
        "Picture_1A_by_freespace.jpg",
        "Wine_by_Jakkub_Mede.jpg",
        "aitzgorri_by_Aitzol_Berasategi.jpg",
        "friends_by_Aitzol_Berasategi.jpg",
        "life_by_Aitzol_Berasategi.jpg",
        "picosdeeuropa_by_Aitzol_Berasategi.jpg",
        "seeding_by_Clements_Engelhardt.jpg",
        "sunset_by_Aitzol_Berasategi.jpg",
    ),
    "skimage": ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"),
}
"""Of folders whose other pictures have other licences or are of no use: the files that are taken."""


@dataclass(frozen=True)
class Material:
    """Pictures in a fixed order, as seeds refer to places in it."""

    photos: tuple[Path, ...]
    screens: tuple[Path, ...]

    @property
    def names(self) -> list[str]:
        """Folder and file of all, for the note beside what is made from them."""
        return [f"{path.parent.name}/{path.name}" for path in (*self.photos, *self.screens)]


def find_material(roots: list[Path]) -> Material:
    """All pictures that are trained on.

    Args:
        roots: folders that hold the folders of `PHOTOS` and `SCREENS`, each in one of them.

    Raises:
        FileNotFoundError: a folder or a named file is in none of them, or a folder is empty.
    """

    def pictures(folder: str) -> list[Path]:
        place = next((root / folder for root in roots if (root / folder).is_dir()), None)
        if place is None:
            raise FileNotFoundError(f"the folder {folder} in any of {', '.join(map(str, roots))}")
        if folder in NAMES:
            found = [place / name for name in NAMES[folder]]
        else:
            found = sorted(path for path in place.iterdir() if path.suffix.lower() in {".png", ".jpg"})
        for path in found or [place / "*.png"]:
            if not path.is_file():
                raise FileNotFoundError(path)
        return found

    return Material(
        tuple(path for folder in PHOTOS for path in pictures(folder)),
        tuple(path for folder in SCREENS for path in pictures(folder)),
    )


@lru_cache(maxsize=80)
def open_picture(path: Path) -> Image.Image:
    """A picture in RGB, kept for the next time."""
    return Image.open(path).convert("RGB")
