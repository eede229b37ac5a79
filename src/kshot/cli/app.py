"""`kshot app`: a page in the browser that learns from photographs."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from kshot import app
from kshot.cli.options import Options
from kshot.photos.network import pretrained

_THIS_MACHINE = "127.0.0.1"


def run(arguments: Sequence[str]) -> None:
    """Open a page in the browser: drag photographs into classes, or take them with the webcam. It learns at once,
    says how far to trust it, and recognises new photographs; the classifier can be downloaded. Everything stays
    on this machine. Needs pip install 'kshot[web,photos]'.

    Examples
    --------
    kshot app
    kshot app --port 8000 --open-browser false
    kshot app --host 0.0.0.0
    """
    options = Options.of("kshot app", run)
    options.add(
        "--host",
        str,
        default=_THIS_MACHINE,
        text="the address to serve at; 0.0.0.0 lets everybody in the network use it",
    )
    options.add("--port", int | None, text="the port; by default a free one from 7860 on")
    options.add("--backbone", str, default="efficientnet-lite0", text="a pretrained backbone, as for kshot classify")
    options.add("--open-browser", bool, default=True, text="open the page in the browser")
    given = options.parse(arguments)
    pretrained(given.backbone)  # what is missing is said before anything is served
    page = app.build(given.backbone)
    if given.host != _THIS_MACHINE:
        print(
            f"note: everybody who can reach {given.host} can use the page, and teach a classifier of their own",
            file=sys.stderr,
        )
    print("the page opens in the browser; Ctrl-C ends it", flush=True)
    app.launch(page, host=given.host, port=given.port, open_browser=given.open_browser)
