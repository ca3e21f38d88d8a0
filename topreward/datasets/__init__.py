"""Where episodes come from: `open_dataset(uri)` → a lazy sequence of Episodes; `read_listing` for listings."""

from topreward.datasets.listing import read_listing
from topreward.datasets.open import open_dataset
from topreward.datasets.source import Dataset

__all__ = ["Dataset", "open_dataset", "read_listing"]
