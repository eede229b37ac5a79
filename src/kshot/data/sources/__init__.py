"""Where datasets come from: one file per family, and one row of the table here per dataset."""

from kshot.data.sources.aircraft import Aircraft
from kshot.data.sources.base import Source
from kshot.data.sources.cars import Cars
from kshot.data.sources.cifar import FC100, CifarFS
from kshot.data.sources.cub import CUB
from kshot.data.sources.folder import Folder
from kshot.data.sources.fungi import Fungi
from kshot.data.sources.glyphs import Glyphs
from kshot.data.sources.group_structured import AircraftBirdFungi, CarBirdFungi
from kshot.data.sources.mini_imagenet import MiniImageNet
from kshot.data.sources.mixture import Mixture
from kshot.data.sources.omniglot import Omniglot, OmniglotBackground, OmniglotLake
from kshot.data.sources.tiered_imagenet import TieredImageNet

SOURCES: dict[str, type[Source]] = {
    source.name: source
    for source in (
        Glyphs,
        CifarFS,
        FC100,
        MiniImageNet,
        TieredImageNet,
        Omniglot,
        OmniglotLake,
        OmniglotBackground,
        Aircraft,
        CUB,
        Cars,
        Fungi,
        AircraftBirdFungi,
        CarBirdFungi,
        Folder,
        Mixture,
    )
}

__all__ = ["SOURCES", "Source"]
