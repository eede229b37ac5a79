"""Classifiers on the Hugging Face hub: the file, and a model card that says what it knows and how far to trust it."""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from types import ModuleType

from kshot.errors import ConfigError, DataError
from kshot.files import write_text
from kshot.photos.estimate import CAUTION
from kshot.photos.saving import Saved

FILE, CARD = "classifier.kshot", "README.md"
_SHOWN = 50  # classes


def upload(saved: Saved, repository: str, *, private: bool, token: str | None) -> str:
    """Put the classifier and its card into a repository, which is made if needed; returns the address.

    Raises
    ------
    ConfigError
        If huggingface_hub is missing, or the hub refuses.
    """
    hub = _library()
    with tempfile.TemporaryDirectory() as folder:
        write_folder(saved, Path(folder), repository)
        try:
            interface = hub.HfApi(token=token)
            interface.create_repo(repository, private=private, exist_ok=True)
            interface.upload_folder(repo_id=repository, folder_path=folder, commit_message="Add a classifier of kshot")
        except Exception as error:  # of the hub, of the network, of a wrong token
            raise ConfigError(
                f"{repository} cannot be written on the hub: {' '.join(str(error).split())[:300]}"
            ) from error
    return f"https://huggingface.co/{repository}"


def write_folder(saved: Saved, folder: Path, repository: str) -> None:
    """Write what a repository holds into a folder."""
    saved.write(folder / FILE)
    write_text(folder / CARD, model_card(saved, repository))


def download(repository: str | Path, *, revision: str | None, token: str | None) -> Path:
    """The file of a classifier in a repository of the hub, or in a folder with what a repository holds.

    Raises
    ------
    ConfigError
        If huggingface_hub is missing, or the hub cannot be reached.
    DataError
        If the folder holds no classifier.
    """
    folder = Path(repository)
    if folder.is_dir():
        if not (folder / FILE).is_file():
            raise DataError(f"{folder} holds no {FILE}")
        return folder / FILE
    hub = _library()
    try:
        return Path(hub.hf_hub_download(str(repository), FILE, revision=revision, token=token))
    except Exception as error:  # of the hub, of the network, of a wrong name
        raise ConfigError(f"{repository} cannot be read from the hub: {' '.join(str(error).split())[:300]}") from error


def model_card(saved: Saved, repository: str) -> str:
    """The README.md of a repository: what the classifier knows, what it was made from, how far to trust it."""
    about, count = saved.about, len(saved.tensors["labels"])
    classes = [str(name).replace("\n", " ") for name in about["classes"]]
    listed = "\n".join(f"- {_plain(name)}" for name in classes[:_SHOWN])
    more = f"\n- and {len(classes) - _SHOWN} more" if len(classes) > _SHOWN else ""
    backbone = about["backbone"]["trained_on"] if about["backbone"] else "none: it takes features"
    return f"""---
library_name: kshot
pipeline_tag: image-classification
tags:
- few-shot-learning
- image-classification
---

# A few-shot classifier of {len(classes)} classes

Learnt from {count} photographs by [kshot](https://pypi.org/project/kshot/) {about["kshot"]}.

```python
import kshot

classifier = kshot.FewShotClassifier.from_hub("{repository}")
print(classifier.predict("photo.jpg"), classifier.predict_proba("photo.jpg"))
```

## Classes

{listed}{more}

## How far to trust it

{_trust(saved)}

It knows these classes alone, and takes all for equally likely; `classifier.predict(photos, reject=0.05)` refuses
photographs of other things. It has not been tested for bias, and is no basis for decisions about people.

## What it is made of

- Backbone: {_plain(backbone)}
- In the file: the head, the features and file names of the examples{_thumbnails(saved)}; nothing that is executed
"""


def _trust(saved: Saved) -> str:
    estimate = saved.about["estimate"]
    if estimate is None:
        return "Every class has a single example, so that its accuracy cannot be estimated."
    low, mean, high = (100 * estimate[name] for name in ("low", "accuracy", "high"))
    return (
        f"Of new photographs like the examples, about {mean:.0f} % are recognised (95% interval {low:.0f} to "
        f"{high:.0f} %), as examples tell that were left out. {CAUTION}"
    )


def _thumbnails(saved: Saved) -> str:
    return ", and a small picture of each" if "thumbnails" in saved.tensors else ""


def _plain(text: str) -> str:
    """Text without the characters that Markdown and HTML read as marks."""
    return "".join(f"&#{ord(letter)};" if letter in "<>&[]`*_|#" else letter for letter in text)


def _library() -> ModuleType:
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise ConfigError(f"the hub needs the package huggingface_hub: pip install 'kshot[hub]' ({error})") from error
