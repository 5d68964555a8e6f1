"""Folder tree -> manifest -> decoded images; mapping; splits; augmentation; demo data."""

from spectro.data.augmentation import VARIANTS, expand, vary
from spectro.data.cache import RowCache, row_cache
from spectro.data.dataset import Dataset, Split, labels_of, load_folder
from spectro.data.decode import Crop, ImageSpec
from spectro.data.images import Images, ImageStore, pixels_of
from spectro.data.manifest import SPLITS, Record
from spectro.data.mapping import Mapping

__all__ = [
    "SPLITS",
    "VARIANTS",
    "Crop",
    "Dataset",
    "ImageSpec",
    "ImageStore",
    "Images",
    "Mapping",
    "Record",
    "RowCache",
    "Split",
    "expand",
    "labels_of",
    "load_folder",
    "pixels_of",
    "row_cache",
    "vary",
]
