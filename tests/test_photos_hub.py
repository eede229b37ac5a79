"""Classifiers on the hub: what a repository holds, from a local folder, without a network."""

from __future__ import annotations

import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from kshot.errors import ConfigError, DataError
from kshot.photos import FewShotClassifier
from kshot.photos.hub import CARD, FILE

FEATURES = np.random.default_rng(0).normal(size=(12, 8)) + 4 * np.repeat(np.eye(3, 8), 4, 0)
NAMES = np.repeat(["cat", "<b>dog</b>", "a|b"], 4)


class Hub(SimpleNamespace):
    """The three functions of huggingface_hub that kshot calls, with folders for repositories."""

    def __init__(self, root):
        super().__init__(root=root, asked=[])

    def HfApi(self, token):
        self.asked.append(token)
        return self

    def create_repo(self, repository, *, private, exist_ok):
        if repository == "nobody/forbidden":
            raise PermissionError("403 Forbidden:\nyou have no right")
        (self.root / repository).mkdir(parents=True, exist_ok=exist_ok)
        self.asked.append(private)

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)

    def hf_hub_download(self, repository, name, *, revision, token):
        if not (self.root / repository / name).exists():
            raise FileNotFoundError(f"404: {repository}@{revision}")
        return str(self.root / repository / name)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    stand_in = Hub(tmp_path / "hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", stand_in)
    return stand_in


@pytest.fixture
def classifier():
    return FewShotClassifier().fit(FEATURES, NAMES)


def test_there_and_back(classifier, hub):
    assert classifier.push_to_hub("me/pets", private=True, token="t") == "https://huggingface.co/me/pets"
    assert hub.asked == ["t", True]
    assert sorted(path.name for path in (hub.root / "me/pets").iterdir()) == [CARD, FILE]
    again = FewShotClassifier.from_hub("me/pets")
    np.testing.assert_allclose(again.predict_proba(FEATURES), classifier.predict_proba(FEATURES), atol=1e-9)
    local = FewShotClassifier.from_hub(hub.root / "me" / "pets")
    assert local.classes_.tolist() == classifier.classes_.tolist()
    classifier.push_to_hub("me/pets")  # again, which replaces it


def test_the_card_says_what_it_is_and_how_far_to_trust_it(classifier, hub):
    classifier.push_to_hub("me/pets")
    card = (hub.root / "me/pets" / CARD).read_text()
    assert card.startswith("---\nlibrary_name: kshot\n")
    assert 'FewShotClassifier.from_hub("me/pets")' in card
    assert f"{100 * classifier.estimate().accuracy:.0f} % are recognised" in card
    assert "<b>" not in card
    assert "a&#124;b" in card
    single = FewShotClassifier().fit(np.eye(3), ["a", "b", "c"])
    single.push_to_hub("me/single")
    assert "cannot be estimated" in (hub.root / "me/single" / CARD).read_text()


def test_what_the_hub_refuses_is_a_sentence(classifier, hub, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="nobody/forbidden cannot be written on the hub: 403 Forbidden: you have no"):
        classifier.push_to_hub("nobody/forbidden")
    with pytest.raises(ConfigError, match="me/nothing cannot be read from the hub: 404"):
        FewShotClassifier.from_hub("me/nothing")
    with pytest.raises(DataError, match=r"holds no classifier\.kshot"):
        FewShotClassifier.from_hub(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=r"pip install 'kshot\[hub\]'"):
        classifier.push_to_hub("me/pets")


def test_the_real_library_has_what_is_called():
    library = pytest.importorskip("huggingface_hub")
    assert {"repo_id", "private", "exist_ok"} <= set(library.HfApi.create_repo.__annotations__)
    assert {"repo_id", "folder_path", "commit_message"} <= set(library.HfApi.upload_folder.__annotations__)
    assert {"revision", "token"} <= set(library.hf_hub_download.__annotations__)
