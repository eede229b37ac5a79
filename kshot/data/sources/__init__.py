"""Where datasets come from: one file a family, one row here a dataset."""

from kshot.data.sources.base import Source
from kshot.data.sources.cifar import FC100, CifarFS
from kshot.data.sources.glyphs import Glyphs

SOURCES: dict[str, type[Source]] = {source.name: source for source in (Glyphs, CifarFS, FC100)}

__all__ = ["SOURCES", "Source"]
