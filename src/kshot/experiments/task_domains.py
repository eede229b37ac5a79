"""How the groups of TSA-MAML divide up the domains of its tasks (Z21 fig. 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import binomtest

from kshot.data.dataset import Dataset, Split
from kshot.evaluation.agreement import agreement
from kshot.experiments.domain_tasks import DomainTasks, Record, agreement_columns
from kshot.experiments.findings import Findings
from kshot.learners import Learner


def group_usage(
    learners: Mapping[str, Learner],
    split: Split | Dataset,
    *,
    ways: int = 5,
    shots: int = 5,
    tasks: int = 1000,
    seed: int = 0,
    progress: bool = False,
) -> Findings:
    """How often the tasks of each domain use each group, as a heat map.

    Parameters
    ----------
    learners
        TSA-MAML, trained, by the names that the picture shows.
    split
        The classes that tasks are drawn from; a dataset stands for its test split. Tasks keep to one of its domains
        (dataset of a mixture, alphabet, superclass).
    ways
        Classes per task.
    shots
        Support images per class.
    tasks
        Tasks per domain (Z21: 1000).
    seed
        Names the set of tasks.
    progress
        Show a bar on the terminal.

    Returns
    -------
    Findings
        One line per learner, domain and group: the share of tasks with its 95% interval (Wilson), and for the learner
        the normalised mutual information and adjusted Rand index of groups and domains, with theirs (bootstrap).

    Raises
    ------
    ConfigError
        If an option makes no sense, or a learner is no TSA-MAML or does not fit the images.
    DataError
        If the split is too small for the tasks.
    """
    drawn = DomainTasks.of(split, ways=ways, shots=shots, tasks=tasks, seed=seed)
    rows: list[Record] = []
    for name, learner in learners.items():
        tsa_maml = drawn.checked(name, learner)
        assigned = drawn.measured(tsa_maml, tsa_maml.assigned, bar=name if progress else None)
        agreed = agreement_columns(agreement(assigned, drawn.domains))
        for domain, groups in zip(drawn.names, assigned.reshape(-1, tasks)):
            for group in range(tsa_maml.groups):
                count = int((groups == group).sum())
                low, high = binomtest(count, tasks).proportion_ci(method="wilson")
                row: Record = {"run": name, "domain": domain, "group": group, "frequency": count / tasks}
                rows.append(row | {"low95": float(low), "high95": float(high)} | agreed | drawn.columns())
    size = (max(4.5, 1.2 + 0.75 * len(rows) / len(drawn.names)) + 1, 1.8 + 0.45 * len(drawn.names))
    return Findings(rows, _usage_verdict(rows, str(drawn)), lambda figure: _draw_usage(figure, rows, str(drawn)), size)


def _usage_verdict(rows: Sequence[Record], protocol: str) -> str:
    parts = []
    for name in dict.fromkeys(row["run"] for row in rows):
        favourites = []
        for domain in dict.fromkeys(row["domain"] for row in rows):
            of_domain = [row for row in rows if (row["run"], row["domain"]) == (name, domain)]
            best = max(of_domain, key=lambda row: float(row["frequency"]))
            low, high = (100 * float(best[edge]) for edge in ("low95", "high95"))
            favourites.append(
                f"{domain} group {best['group']} in {100 * float(best['frequency']):.1f} % ({low:.1f} to {high:.1f})"
            )
        row = next(row for row in rows if row["run"] == name)
        measures = [
            f"{text} {float(row[key]):.3f} ({float(row[f'{key}_low95']):.3f} to {float(row[f'{key}_high95']):.3f})"
            for text, key in (("mutual information", "nmi"), ("adjusted Rand index", "ari"))
        ]
        parts.append(f"{name}: {', '.join(favourites)}; groups and domains: {', '.join(measures)}")
    return f"The group that each domain uses most: {'; '.join(parts)} ({protocol}; 95% intervals over tasks)."


def _draw_usage(figure: Figure, rows: Sequence[Record], protocol: str) -> None:
    figure.suptitle(f"{protocol};\nbelow each share its 95% interval", fontsize=8.5)
    runs = list(dict.fromkeys(row["run"] for row in rows))
    domains = list(dict.fromkeys(row["domain"] for row in rows))
    for axes, name in zip(figure.subplots(1, len(runs), squeeze=False, sharey=True)[0], runs):
        of_run = [row for row in rows if row["run"] == name]
        shares = np.asarray([row["frequency"] for row in of_run], np.float64).reshape(len(domains), -1)
        axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100, aspect="auto")
        for place, row in enumerate(of_run):
            y, x = divmod(place, shares.shape[1])
            text = f"{100 * shares[y, x]:.0f} %\n{100 * float(row['low95']):.0f}–{100 * float(row['high95']):.0f}"
            colour = "white" if shares[y, x] > 0.55 else "black"
            axes.text(x, y, text, ha="center", va="center", fontsize=7.5, color=colour)
        axes.set_title(str(name), fontsize=10, loc="left")
        axes.set_xticks(range(shares.shape[1]))
        axes.set_yticks(range(len(domains)), domains)
        axes.set_xlabel("group")
