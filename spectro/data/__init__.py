"""Folder tree or table -> manifest -> decoded images; mapping; splits; augmentation; demo data."""

from spectro.data.augmentation import Augmentation
from spectro.data.cache import RowCache, row_cache
from spectro.data.dataset import Dataset, Split, labels_of, load_dataset
from spectro.data.decode import Crop, ImageSpec
from spectro.data.images import Images, ImageStore, pixels_of
from spectro.data.manifest import SPLITS, Record
from spectro.data.mapping import Mapping
from spectro.data.transforms import Spectrogram

__all__ = [
    "SPLITS",
    "Augmentation",
    "Crop",
    "Dataset",
    "ImageSpec",
    "ImageStore",
    "Images",
    "Mapping",
    "Record",
    "RowCache",
    "Spectrogram",
    "Split",
    "labels_of",
    "load_dataset",
    "pixels_of",
    "row_cache",
]
