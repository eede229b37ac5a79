"""The page: classes with photographs on the left; trust, a new photograph, and the file on the right."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from kshot.app import views
from kshot.app.session import Card, Session, without_folders
from kshot.errors import ConfigError, KshotError
from kshot.photos.network import PhotoNetwork

CLASSES = 12  # that fit on a page
_SHOWN_AT_FIRST = 3
_IDLE = 6 * 3600  # seconds after which what a visitor left is forgotten


def build(backbone: str | PhotoNetwork) -> Any:
    """The page as a `gradio.Blocks`.

    Parameters
    ----------
    backbone
        Makes the features of all visitors' photographs: a pretrained name, or a network.

    Raises
    ------
    ConfigError
        If gradio is missing.
    """
    gr = _gradio()
    with gr.Blocks(title="kshot: teach with photographs", analytics_enabled=False, delete_cache=(_IDLE, _IDLE)) as page:
        session = gr.State(lambda: Session(backbone), time_to_live=_IDLE)
        gr.HTML(views.HEADER, padding=False)
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=320):
                slots, more, opening = _teaching(gr)
            with gr.Column(scale=4, min_width=320):
                trust, odd, photograph, answer, keep = _answering(gr)
        groups, names, galleries = zip(*slots)
        shown = gr.State(_SHOWN_AT_FIRST)
        learnt = [session, trust, odd, answer, keep]
        more.click(_one_more, shown, [shown, more, *groups], api_visibility="private")
        gr.on(
            [event for gallery in galleries for event in (gallery.upload, gallery.delete, gallery.change)]
            + [event for name in names for event in (name.submit, name.blur)],
            partial(_learn, gr),
            [session, photograph, *names, *galleries],
            learnt,
            trigger_mode="always_last",
            api_visibility="private",
            show_progress="minimal",
            show_progress_on=[trust],
        )
        photograph.change(_answer, [session, photograph], answer, api_visibility="private", trigger_mode="always_last")
        opening.upload(
            partial(_open, gr),
            [session, opening, photograph],
            [*learnt, shown, more, *groups, *names, *galleries],
            api_visibility="private",
        )
    return page


def _teaching(gr: Any) -> tuple[list[Any], Any, Any]:
    """The left column: the slots of the classes, and the buttons for one more and for a file."""
    gr.HTML(
        views.step(1, "Examples", "Drop three or more photographs into each class, or take them."),
        padding=False,
    )
    slots = [_slot(gr, number) for number in range(CLASSES)]
    with gr.Row():
        more = gr.Button("Add a class", elem_id="more", size="md")
        opening = gr.UploadButton(
            "Open a classifier", elem_id="open", size="md", file_types=[".kshot"], type="filepath"
        )
    return slots, more, opening


def _answering(gr: Any) -> tuple[Any, Any, Any, Any, Any]:
    """The right column: trust, doubtful examples, a new photograph, the answer, and the file to keep."""
    gr.HTML(views.step(2, "How far to trust it", ""), padding=False)
    trust = gr.HTML(views.nothing_learnt(), elem_id="trust", padding=False)
    odd = gr.HTML("", elem_id="odd", padding=False)
    gr.HTML(views.step(3, "Try a new photograph", ""), padding=False)
    photograph = gr.Image(
        label="A new photograph", show_label=False, elem_id="new", type="filepath", height=230,
        sources=["upload", "webcam", "clipboard"], buttons=[],
        placeholder="Drop a photograph here, or click",
    )  # fmt: skip
    answer = gr.HTML("", elem_id="answer", padding=False)
    gr.HTML(views.step(4, "Keep it", "The file holds small pictures of the examples."), padding=False)
    keep = gr.DownloadButton("Download the classifier", elem_id="keep", interactive=False, size="md")
    return trust, odd, photograph, answer, keep


def launch(page: Any, *, host: str, port: int | None, open_browser: bool, block: bool = True) -> str:
    """Serve the page until Ctrl-C; returns its address if it does not `block`.

    Parameters
    ----------
    page
        What `build` gave.
    host
        The address to bind to; "127.0.0.1" is reached from this machine alone.
    port
        None for a free one from 7860 on.
    open_browser
        Open the page in the browser.
    block
        Whether to wait for Ctrl-C.

    Raises
    ------
    ConfigError
        If the port cannot be had, or the page does not answer.
    """
    gr = _gradio()
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            inbrowser=open_browser,
            share=False,
            quiet=True,
            prevent_thread_lock=not block,
            show_error=True,
            ssr_mode=False,
            max_file_size="200mb",
            footer_links=[],
            enable_monitoring=False,
            theme=_theme(gr),
            css=views.STYLE,
        )
    except OSError as error:
        raise ConfigError(f"the page cannot be served at {host}: {error}; choose another --port or --host") from error
    except ValueError as error:  # gradio has asked its own page and got no answer in time
        raise ConfigError(
            f"the page is served at {host}, but does not answer there; if a proxy is set, except this machine from it "
            "(NO_PROXY=localhost,127.0.0.1), or try again when the machine is less busy"
        ) from error
    return str(address)


def _gradio() -> ModuleType:
    """Gradio, which must not ask other machines for anything."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        return importlib.import_module("gradio")
    except ImportError as error:
        raise ConfigError(f"the page needs the package gradio: pip install 'kshot[web]' ({error})") from error


def _theme(gr: ModuleType) -> Any:
    """Fonts of the system, since others would come from another machine."""
    return gr.themes.Soft(
        primary_hue="blue",
        neutral_hue="slate",
        radius_size="md",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )


def _slot(gr: ModuleType, number: int) -> tuple[Any, Any, Any]:
    """The place of one class: a box with its name and its photographs."""
    with gr.Group(visible=number < _SHOWN_AT_FIRST, elem_id=f"class-{number}", elem_classes="class-card") as group:
        name = gr.Textbox(
            value=f"class {number + 1}", label="Name of the class", show_label=False, container=False, max_lines=1,
            elem_classes="class-name",
        )  # fmt: skip
        gallery = gr.Gallery(
            show_label=False, container=False, type="filepath", file_types=["image"], columns=6, height=150,
            fit_columns=False, object_fit="cover", interactive=True, sources=["upload", "webcam", "clipboard"],
            buttons=[], elem_classes="class-photos",
        )  # fmt: skip
    return group, name, gallery


def _one_more(shown: int) -> list[Any]:
    """Show one more place for a class."""
    gr = _gradio()
    shown = min(shown + 1, CLASSES)
    groups = [gr.update(visible=number < shown) for number in range(CLASSES)]
    return [shown, gr.update(interactive=shown < CLASSES), *groups]


def _cards(session: Session, content: Sequence[Any]) -> list[Card]:
    """The cards of the page; galleries hold (file, caption) of each photograph."""
    names, galleries = content[:CLASSES], content[CLASSES:]
    cards = []
    for number, (name, gallery) in enumerate(zip(names, galleries)):
        added = tuple(Path(path) for path, _ in gallery or () if not session.is_of_file(Path(path)))
        cards.append(Card((name or "").strip() or f"class {number + 1}", added))
    return cards


def _learn(gr: ModuleType, session: Session, photograph: str | None, *content: Any) -> list[Any]:
    """What follows from the photographs and names on the page."""
    try:
        changed = session.learn(_cards(session, content))
    except KshotError as error:
        return _shown(gr, session, photograph, without_folders(error))
    return _shown(gr, session, photograph) if changed else [session, *(gr.skip() for _ in range(4))]


def _shown(gr: ModuleType, session: Session, photograph: str | None, error: str = "") -> list[Any]:
    """Session, trust, odd examples, answer and file, as they are now."""
    if session.classifier is None:
        return [session, views.nothing_learnt(error), "", "", gr.update(interactive=False, value=None)]
    keep = gr.update(interactive=True, value=str(session.save()))
    return [session, views.trust(session), views.odd(session.doubtful()), _answer(session, photograph), keep]


def _answer(session: Session, photograph: str | None) -> str:
    if photograph is None or session.classifier is None:
        return views.no_answer(photograph is not None)
    try:
        return views.answer(session.answer(Path(photograph)))
    except KshotError as error:
        return views.problem(without_folders(error))


def _open(gr: ModuleType, session: Session, path: str, photograph: str | None) -> list[Any]:
    """Start from a file: its classes take the places, with small pictures of their examples."""
    try:
        pictures = session.open(Path(path))
        if len(pictures) > CLASSES:
            raise ConfigError(f"it has {len(pictures)} classes, and the page shows {CLASSES}: use kshot classifier")
    except KshotError as error:
        gr.Warning(views.plain(without_folders(error)), title="This file cannot be opened")
        return [session, *(gr.skip() for _ in range(4 + 2 + 3 * CLASSES))]
    shown = max(_SHOWN_AT_FIRST, len(pictures))
    groups = [gr.update(visible=number < shown) for number in range(CLASSES)]
    titles = [*(name for name, _ in pictures), *(f"class {number + 1}" for number in range(len(pictures), CLASSES))]
    names = [gr.update(value=title, interactive=number >= len(pictures)) for number, title in enumerate(titles)]
    photographs = [gr.update(value=list(map(str, files))) for _, files in pictures]
    photographs += [gr.update(value=None) for _ in range(len(pictures), CLASSES)]
    more = gr.update(interactive=shown < CLASSES)
    return [*_shown(gr, session, photograph), shown, more, *groups, *names, *photographs]
