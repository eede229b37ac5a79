"""The templates of pages, which share their style."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined, Template


def template(name: str) -> Template:
    """A template of this folder, by the `name` of its file: what it shows is escaped, and what it lacks is an error."""
    environment = Environment(
        loader=PackageLoader("kshot", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
