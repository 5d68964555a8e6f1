"""Folder tree -> manifest -> decoded pictures; mapping; splits; augmentation; demo data."""

from spectro.data.augmentation import VARIANTS, expand, vary
from spectro.data.cache import RowCache, row_cache
from spectro.data.dataset import Dataset, Split, labels_of, load_folder
from spectro.data.decode import Crop, PictureSpec
from spectro.data.manifest import SPLITS, Record
from spectro.data.mapping import Mapping
from spectro.data.pictures import Pictures, PictureStore, in_variants, mean_of_variants, pixels_of

__all__ = [
    "SPLITS",
    "VARIANTS",
    "Crop",
    "Dataset",
    "Mapping",
    "PictureSpec",
    "PictureStore",
    "Pictures",
    "Record",
    "RowCache",
    "Split",
    "expand",
    "in_variants",
    "labels_of",
    "load_folder",
    "mean_of_variants",
    "pixels_of",
    "row_cache",
    "vary",
]
