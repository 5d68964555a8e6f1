"""Classified images in a folder for each class, so that a person can look through them."""

import itertools
import os
import re
from contextlib import suppress
from pathlib import Path

from spectro.data.inputs import ImageInput
from spectro.files import drafted

# The folder of images that a person should look at.
REVIEW = "review"
# A file's name has 255 bytes on most disks.
_NAME_BYTES = 200


def sort_into(folder: Path, item: ImageInput, max_megapixels: float) -> Path:
    """Links an image into a folder, or copies it: out of an archive, and to a disk without links.

    Nothing is overwritten. A file of this name and content is the image itself, from before the command was killed; any
    other one of this name leaves it ``_2``, ``_3`` and so on. Images larger than ``max_megapixels`` are not unpacked.

    Returns:
        The file.

    Raises:
        BadImageError: The image is no longer there.
        OSError: It cannot be written.
    """
    name = Path((item.entry or item.path.name).replace("\\", "/"))
    folder.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        target = folder / (name.name if number == 1 else f"{name.stem}_{number}{name.suffix}")
        if item.archive is None:
            with suppress(OSError):  # it exists, or the disk is another one or has no links
                os.link(item.path.resolve(), target)
                return target
        if not target.exists():
            with drafted(target) as draft:
                draft.write_bytes(item.read(max_megapixels))
            return target
        if target.is_file() and target.read_bytes() == item.read(max_megapixels):
            return target
    raise AssertionError


def folder_name(label: str) -> str:
    """A label as the name of a folder, on any system: what a name may not hold is ``%`` and its code.

    So are the first letter of a class that is called as `REVIEW`, and a leading dot.
    """
    name = re.sub(r'[\x00-\x1f%/\\:*?"<>|]', lambda match: f"%{ord(match[0]):02X}", label)
    if not name or name[0] == "." or name.lower() == REVIEW:
        name = f"%{ord(name[0]):02X}{name[1:]}" if name else "%"
    return os.fsdecode(os.fsencode(name)[:_NAME_BYTES])
