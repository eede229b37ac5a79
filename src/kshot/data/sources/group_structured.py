"""The group-structured data of Zhou et al. (2021), table 1: three domains, and every task from one of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from kshot.data.sources.mixture import Mixture


class AircraftBirdFungi(Mixture):
    """The domains aircraft, bird and fungi."""

    name = "group-aircraft-bird-fungi"
    description = "aircraft, cub and fungi as domains, 84x84 (Zhou et al. 2021, table 1)"
    classes = "192 / 48 / 60"
    obtain = "Prepare aircraft, cub and fungi first; no files are needed."
    arguments = ""
    needs_name = False
    domains: ClassVar[Mapping[str, str]] = {"cub": "bird"}

    def __init__(self) -> None:
        super().__init__(["aircraft", "cub", "fungi"])


class CarBirdFungi(Mixture):
    """The domains car, bird and fungi."""

    name = "group-car-bird-fungi"
    description = "cars, cub and fungi as domains, 84x84 (Zhou et al. 2021, table 1)"
    classes = "254 / 63 / 79"
    obtain = "Prepare cars, cub and fungi first; no files are needed."
    arguments = ""
    needs_name = False
    domains: ClassVar[Mapping[str, str]] = {"cub": "bird", "cars": "car"}

    def __init__(self) -> None:
        super().__init__(["cars", "cub", "fungi"])
