"""Tasks: task number i is a pure function of (seed, split, shape, i), drawn for thousands of tasks at once."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from numbers import Integral
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kshot import seeding
from kshot.data.classes import listed
from kshot.data.drawing import draw_without_replacement
from kshot.data.split import Split
from kshot.errors import ConfigError, DataError

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class TaskShape:
    """The shape of a task, in the field's order: N-way K-shot with Q queries.

    Parameters
    ----------
    ways
        Classes per task, N. A regression task has one way: its one output.
    shots
        Support images per class, K, or support points.
    queries
        Query images per class, Q, or query points.
    """

    ways: int = 5
    shots: int = 5
    queries: int = 15

    def __post_init__(self) -> None:
        for name, least in (("ways", 1), ("shots", 1), ("queries", 0)):
            if not isinstance(getattr(self, name), Integral):
                raise ConfigError(f"{name} is {getattr(self, name)!r:.80}, but must be a whole number")
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}, but must be at least {least}")

    def __str__(self) -> str:
        return f"{self.ways}-way {self.shots}-shot {self.queries}-query"


@dataclass(frozen=True, repr=False)
class Episodes:
    """A batch of B tasks.

    Images are as `Split.gather` returns them when sampled, uint8 (B, S, H, W, C) of a prepared dataset, and float
    (B, S, C, H, W) when a learner sees them; the inputs of regression are float (B, S, d) from the start.

    Parameters
    ----------
    support
        (B, S, ...), S = N*K when sampled.
    support_labels
        (B, S) int64 in 0..N-1, or (B, S, 1) float32 in regression.
    query
        (B, T, ...), T = N*Q when sampled.
    query_labels
        (B, T), or (B, T, 1) in regression.
    classes
        (B, N) int64, the class of the split behind each label; (B, 1) in regression.
    keys
        (B,) uint64, one random key per task for augmentation and dropout; empty if nothing is random.
    """

    support: Tensor
    support_labels: Tensor
    query: Tensor
    query_labels: Tensor
    classes: Tensor
    keys: NDArray[np.uint64]

    def __repr__(self) -> str:
        parts = [
            f"{name} {tuple(images.shape)} {str(images.dtype).removeprefix('torch.')}"
            for name, images in (("support", self.support), ("query", self.query))
        ]
        kind = "regression" if self.support_labels.is_floating_point() else f"{self.ways}-way"
        return f"Episodes: {self.tasks} {kind} tasks on {self.support.device}\n  " + "\n  ".join(parts)

    @property
    def tasks(self) -> int:
        """B, the number of tasks."""
        return len(self.classes)

    @property
    def ways(self) -> int:
        """N, the number of classes per task."""
        return self.classes.shape[1]

    def images(self) -> Tensor:
        """Support and query images side by side, (B, S+T, ...), to be read only: without a copy where they lie so."""
        support, query = self.support, self.query
        if _are_neighbours(support, query):
            shape = (len(support), support.shape[1] + query.shape[1], *support.shape[2:])
            return support.as_strided(shape, support.stride())
        return torch.cat([support, query], 1)

    def labels(self) -> Tensor:
        """Support and query labels side by side, (B, S+T)."""
        return torch.cat([self.support_labels, self.query_labels], 1)

    def part(self, start: int, stop: int) -> Episodes:
        """The tasks of the batch from number `start` up to, and without, `stop`."""
        return replace(self, **{field.name: getattr(self, field.name)[start:stop] for field in fields(self)})

    def with_images(self, support: Tensor, query: Tensor) -> Episodes:
        """The tasks with other images, `support` (B, S, ...) and `query` (B, T, ...), such as features."""
        return replace(self, support=support, query=query)


def _are_neighbours(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors (B, S, ...) and (B, T, ...) are neighbouring slices of one (B, S+T, ...), as sampled."""
    return (
        first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr()
        and first.stride() == second.stride()
        and first.shape[0] == second.shape[0]
        and first.shape[2:] == second.shape[2:]
        and second.storage_offset() == first.storage_offset() + first.shape[1] * first.stride(1)
        and not (first.requires_grad or second.requires_grad)
    )


@dataclass(frozen=True)
class EpisodeRows:
    """The rows of a split that B tasks are made of.

    Parameters
    ----------
    support, query
        (B, N, K) and (B, N, Q) row numbers.
    classes
        (B, N) the classes of each task.
    keys
        (B,) one random key per task.
    """

    support: IntArray
    query: IntArray
    classes: IntArray
    keys: NDArray[np.uint64]

    def labels(self) -> tuple[IntArray, IntArray]:
        """Support labels (B, N*K) and query labels (B, N*Q), 0..N-1."""
        tasks, ways, shots = self.support.shape
        way = np.arange(ways)
        spread = [np.tile(np.repeat(way, n), (tasks, 1)) for n in (shots, self.query.shape[2])]
        return spread[0], spread[1]

    def gather(self, split: Split, device: torch.device | str = "cpu") -> Episodes:
        """The tasks with their images, as the split stores them, on `device`."""
        tasks = len(self.classes)
        rows = np.concatenate([self.support.reshape(tasks, -1), self.query.reshape(tasks, -1)], 1)
        images = split.gather(rows, device)
        support_labels, query_labels = (torch.from_numpy(array).to(device) for array in self.labels())
        boundary = support_labels.shape[1]
        return Episodes(
            support=images[:, :boundary],
            support_labels=support_labels,
            query=images[:, boundary:],
            query_labels=query_labels,
            classes=torch.from_numpy(self.classes).to(device),
            keys=self.keys,
        )


class EpisodeSampler:
    """Draws tasks of one shape from one split; every task number names the same task in every process.

    Parameters
    ----------
    split
        The classes and their images.
    shape
        Ways, shots and queries.
    seed
        Names the set of tasks.
    within_domain
        True to draw all classes of a task from one domain (an alphabet, a superclass): domains with at least N classes
        are equally likely. False to draw them from the whole split. None as the split says.

    Raises
    ------
    DataError
        If the split has too few classes, or classes too few images, for the shape.
    """

    def __init__(self, split: Split, shape: TaskShape, *, seed: int, within_domain: bool | None = None) -> None:
        self.split, self.shape, self.seed = split, shape, seed
        self.within_domain = split.tasks_within_domain if within_domain is None else within_domain
        self._check()
        words = (split.name, shape.ways, shape.shots, shape.queries, int(self.within_domain))
        self._key = seeding.key(seed, "tasks", *words)
        self._members, self._sizes = self._pools()

    def __repr__(self) -> str:
        within = ", all classes of a task from one domain" if self.within_domain else ""
        return f"EpisodeSampler: {self.shape} tasks of {self.split.dataset}/{self.split.name}, seed {self.seed}{within}"

    def _check(self) -> None:
        split, shape, where = self.split, self.shape, f"{self.split.dataset}/{self.split.name}"
        if shape.ways < 2:
            raise ConfigError(f"ways is {shape.ways}, but must be at least 2 for tasks made of classes")
        if shape.ways > split.num_classes:
            raise DataError(
                f"{where} has {split.num_classes} classes, too few for {shape.ways} ways; choose fewer ways"
            )
        queries = self.most_queries
        needed = shape.shots + queries
        small = np.flatnonzero(split.counts < needed)
        if len(small):
            first = small[np.argmin(split.counts[small])]
            sizes = (f"{split.class_names[label]!r} ({split.counts[label]})" for label in small)
            some_are_large = len(small) < split.num_classes
            leave_out = f", or leave small classes out (of a folder: --min-images {needed})" if some_are_large else ""
            all_of_them = f" In all, {len(small)} classes have too few: {listed(sizes)}." if len(small) > 1 else ""
            raise DataError(
                f"{where}: class {split.class_names[first]!r} has {split.counts[first]} images, but "
                f"{shape.shots} shots + {queries} queries need {needed}; choose fewer shots or "
                f"queries{leave_out}.{all_of_them}"
            )

    @property
    def most_queries(self) -> int:
        """The most query images that a class may have."""
        return self.shape.queries

    def _pools(self) -> tuple[IntArray, IntArray]:
        """The classes that tasks are drawn from: members (domains, largest domain), padded, and sizes (domains,)."""
        split, ways = self.split, self.shape.ways
        if not self.within_domain:
            return np.arange(split.num_classes)[None], np.asarray([split.num_classes])
        names = np.asarray(split.domains)
        pools = [np.flatnonzero(names == name) for name in sorted(set(split.domains))]
        pools = [pool for pool in pools if len(pool) >= ways]
        if not pools:
            raise DataError(
                f"{split.dataset}/{split.name}: no domain has {ways} classes; choose fewer ways or within_domain=false"
            )
        sizes = np.asarray([len(pool) for pool in pools])
        return np.stack([np.pad(pool, (0, sizes.max() - len(pool))) for pool in pools]), sizes

    def rows(self, numbers: IntArray) -> EpisodeRows:
        """The rows of the tasks with the numbers (B,), integers from 0 on."""
        shape, split = self.shape, self.split
        keys = seeding.bits(self._key, np.asarray(numbers))
        pool = seeding.below(keys, 0, len(self._sizes))
        way_keys = seeding.bits(keys[:, None], 1 + np.arange(shape.ways))
        picked = draw_without_replacement(seeding.bits(keys, 1 << 20), self._sizes[pool], shape.ways)
        classes = self._members[pool[:, None], picked]
        within = draw_without_replacement(way_keys, split.counts[classes], shape.shots + self.most_queries)
        rows = split.starts[classes][..., None] + within
        return EpisodeRows(rows[..., : shape.shots], rows[..., shape.shots :], classes, seeding.bits(keys, 1 << 21))

    def first_of_each_domain(self, count: int) -> IntArray:
        """The numbers of the first `count` tasks of each domain that tasks are drawn from, ascending.

        Raises
        ------
        ConfigError
            If the classes of a task come from several domains.
        """
        if not self.within_domain:
            raise ConfigError(
                f"tasks of {self.split.dataset}/{self.split.name} mix domains, so there are none per domain; choose "
                f"within_domain=true, or leave out tasks_per_domain"
            )
        domains = len(self._sizes)
        length = count * domains
        while True:
            length += length // 4 + 64
            pool = seeding.below(seeding.bits(self._key, np.arange(length)), 0, domains)
            numbers = [np.flatnonzero(pool == domain)[:count] for domain in range(domains)]
            if all(len(of_domain) == count for of_domain in numbers):
                return np.sort(np.concatenate(numbers))

    def domains(self, numbers: IntArray) -> NDArray[np.str_] | None:
        """The domain of the tasks with the numbers (B,), (B,) names; None if a task may have classes of several."""
        return np.asarray(self.split.domains)[self.rows(numbers).classes[:, 0]] if self.within_domain else None

    def episodes(self, numbers: IntArray, device: torch.device | str = "cpu") -> Episodes:
        """The tasks with the numbers (B,), with images as the split stores them, on `device`."""
        return self.rows(numbers).gather(self.split, device)


class Sampler(Protocol):
    """What training draws its tasks from: task number i is the same in every process and after every resume."""

    def episodes(self, numbers: IntArray, device: torch.device | str = "cpu") -> Episodes:
        """The tasks with the numbers (B,), as sampled, on `device`."""
        ...
