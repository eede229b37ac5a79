"""`kshot photos`: the way from a few pictures to a classifier, on pictures that need no download."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from kshot.cli.options import Options
from kshot.cli.photographs import notes, picture_of, trust
from kshot.photos import samples
from kshot.photos.classifier import FewShotClassifier
from kshot.photos.network import pretrained

_SHOWN = 6  # new pictures of each sign in the picture


def run(arguments: Sequence[str]) -> None:
    """Draw six signs on cards, as if photographed, five pictures of each to learn from and ten to recognise; fit a
    classifier, say how far to trust it, and see how right it is. Takes half a minute and downloads nothing.
    Needs pip install 'kshot[photos]'. The pictures are made, and no photographs.

    Examples
    --------
    kshot photos
    kshot photos --out somewhere --examples 1
    """
    options = Options.of("kshot photos", run)
    options.add("--out", Path, default=Path("photos"), text="folder for the pictures, signs.kshot and predictions")
    options.add("--examples", int, default=5, text="pictures of each sign to learn from")
    options.add("--seed", int, default=0, text="names the pictures")
    given = options.parse(arguments)
    started = time.perf_counter()
    network = pretrained("efficientnet-lite0")
    print(f"1/3  drawing {len(samples.SIGNS)} signs: {', '.join(samples.SIGNS)}")
    examples, new = samples.draw(given.out, examples=given.examples, seed=given.seed)
    print(f"2/3  learning from {given.examples} of each, by features of {network.trained_on}")
    with notes():
        classifier = FewShotClassifier(seed=given.seed).fit(examples, progress=True)
    print(f"     {trust(classifier.estimate())}".replace("\n", "\n     "))
    print("3/3  recognising the new pictures")
    result = classifier.evaluate(new)
    print(f"     accuracy {result}")
    for mistake in result.mistakes[:3]:
        print(f"     {mistake}")
    predictions = classifier.calibrated(classifier.recognise(new))
    predictions.save(given.out / "predictions.csv")
    shown = classifier.calibrated(classifier.recognise(sorted(new.glob(f"*/IMG_000[0-{_SHOWN - 1}].JPG"))))
    title, truth = f"{_SHOWN} of 10 new pictures of each sign", [path.parent.name for path in shown.paths]
    print(f"\npicture  {picture_of(shown, given.out, title=title, truth=truth)}")
    print(f"kept     {classifier.save(given.out / 'signs.kshot', thumbnails=True)}")
    print(f"time     {time.perf_counter() - started:.0f} s")
    print(
        f"next     kshot classify my_examples/ new_photos/, or kshot classifier predict {given.out}/signs.kshot PHOTO"
    )
