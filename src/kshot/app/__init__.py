"""The page in a browser: photographs in, a classifier out, on this machine alone."""

from kshot.app.page import build, launch

__all__ = ["build", "launch"]
