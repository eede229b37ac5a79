"""Where datasets come from: one file a family, one row here a dataset."""

from kshot.data.sources.base import Source
from kshot.data.sources.glyphs import Glyphs

SOURCES: dict[str, type[Source]] = {source.name: source for source in (Glyphs,)}

__all__ = ["SOURCES", "Source"]
