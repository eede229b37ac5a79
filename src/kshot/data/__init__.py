"""Datasets, their one prepared form, and the tasks that are drawn from them."""

from kshot.data.catalog import CatalogEntry, catalog, load, load_images, prepare, verify
from kshot.data.dataset import Dataset, Normalization, Split
from kshot.data.episodes import Episodes, EpisodeSampler, TaskShape
from kshot.data.regression import Family, RegressionDataset, RegressionSplit
from kshot.files import cache_root

__all__ = [
    "CatalogEntry",
    "Dataset",
    "EpisodeSampler",
    "Episodes",
    "Family",
    "Normalization",
    "RegressionDataset",
    "RegressionSplit",
    "Split",
    "TaskShape",
    "cache_root",
    "catalog",
    "load",
    "load_images",
    "prepare",
    "verify",
]
