"""Datasets, their one prepared form, and the tasks that are drawn from them."""

from kshot.data.catalog import CatalogEntry, catalog, load, load_images, prepare
from kshot.data.dataset import Dataset, Normalization, Split
from kshot.data.episodes import Episodes, EpisodeSampler, TaskShape
from kshot.data.store import cache_root, verify

__all__ = [
    "CatalogEntry",
    "Dataset",
    "EpisodeSampler",
    "Episodes",
    "Normalization",
    "Split",
    "TaskShape",
    "cache_root",
    "catalog",
    "load",
    "load_images",
    "prepare",
    "verify",
]
