"""How strong should the regularisation of the fine-tuned head be? The ablation of W21's appendix C.2, on any run.

    python benchmarks/head_strength.py runs/mtl --shots 1 5 --out head-strength

Logistic regression on the cached features of the validation classes, 1/2 |W|^2 + C * summed cross-entropy, over a grid
of C up to one so large that there is no regularisation to speak of; on features of unit length, and on features as they
are. A table (CSV) and a picture (PNG); the features are computed once, so that all of it takes seconds after that.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from common import describe_machine
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import kshot
from kshot.experiments import plots
from kshot.files import write_csv
from kshot.report import pictures
from kshot.solvers import LogisticRegression

NORMS = {"unit features": True, "features as they are": False}


def backbone_features(run: kshot.Run, split: kshot.data.Split) -> torch.Tensor:
    """Features (M, D) of the backbone, before any normalisation that the learner adds."""
    learner = run.learner
    unit = learner.features
    learner.features = lambda images: learner.in_precision(learner.backbone, images)
    try:
        return kshot.extract_features(learner, split)
    finally:
        learner.features = unit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="of a learner whose backbone is frozen while a task is learnt")
    parser.add_argument("--root", type=Path, default=None)
    parser.add_argument("--split", default="val", choices=["val", "test"])
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.01, 0.1, 0.3, 1, 3, 10, 30, 100, 1e4])
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--queries", type=int, default=15)
    parser.add_argument("--tasks", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("head-strength"), help="of the table and the picture")
    arguments = parser.parse_args()

    run = kshot.Run(arguments.run, root=arguments.root)
    split = run.data.split(arguments.split)
    raw = backbone_features(run, split)
    options = {name: getattr(arguments, name) for name in ("queries", "tasks", "seed")}
    rows = []
    for name, unit in NORMS.items():
        features = F.normalize(raw, dim=-1) if unit else raw
        for shots in arguments.shots:
            for c in arguments.strengths:
                result = kshot.evaluate(
                    run.learner, split, shots=shots, adaptation=LogisticRegression(c=c), features=features, **options
                )
                row = {"features": name, "shots": shots, "c": c, "accuracy": result.mean, "ci95": result.ci95}
                rows.append(row | {"protocol": str(result.protocol)})
                print(f"{name}, {shots}-shot, C = {c:g}: {result.measure.text(result.mean, result.ci95)} %", flush=True)
    write_csv(arguments.out.with_suffix(".csv"), rows)
    pictures.save(picture(rows, arguments), arguments.out.with_suffix(".png"))
    print(describe_machine())
    print(rows[0]["protocol"])
    print(f"wrote {arguments.out}.csv and .png")


def picture(rows: list[dict[str, object]], arguments: argparse.Namespace) -> Figure:
    """Accuracy against C, one panel per number of shots."""
    figure = Figure(figsize=(4.4 * len(arguments.shots), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, shots in zip(figure.subplots(1, len(arguments.shots), squeeze=False)[0], arguments.shots):
        axes.set_xscale("log")
        for style, name in enumerate(NORMS):
            of_curve = [row for row in rows if (row["features"], row["shots"]) == (name, shots)]
            mean, ci95 = ([100 * float(row[key]) for row in of_curve] for key in ("accuracy", "ci95"))
            plots.curve(axes, [row["c"] for row in of_curve], mean, ci95=ci95, label=name, style=style)
        plots.finish(
            axes,
            f"{shots}-shot, {arguments.split} classes, {arguments.tasks} tasks",
            xlabel="C",
            ylabel="accuracy in %",
        )
    return figure


if __name__ == "__main__":
    main()
