"""Folder tree or table -> manifest -> decoded images; mapping; splits; augmentation."""

from spectro.data.augmentation import Augmentation as Augmentation
from spectro.data.cache import RowCache as RowCache
from spectro.data.cache import row_cache as row_cache
from spectro.data.dataset import Dataset as Dataset
from spectro.data.dataset import Split as Split
from spectro.data.dataset import labels_of as labels_of
from spectro.data.dataset import load_dataset as load_dataset
from spectro.data.decode import Crop as Crop
from spectro.data.decode import ImageSpec as ImageSpec
from spectro.data.images import Images as Images
from spectro.data.images import ImageStore as ImageStore
from spectro.data.images import pixels_of as pixels_of
from spectro.data.manifest import SPLITS as SPLITS
from spectro.data.manifest import Record as Record
from spectro.data.mapping import Mapping as Mapping
from spectro.data.transforms import Spectrogram as Spectrogram
