"""What the page says, as HTML: everything that comes from visitors or files is escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from jinja2 import Environment
from PIL import Image

from kshot.app.session import Answer, Session, Thumbnail
from kshot.photos import ExampleVerdict

_templates = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)

HEADER = """<div class="kshot-head"><h1>Teach with a few photographs</h1>
<p>Give each class a name and three or more photographs. kshot learns while you add them, on the computer that it runs
on; nothing is sent elsewhere.</p>
</div>"""

STYLE = """
:root {--quiet: #4b5768} .dark {--quiet: #b9c3d0}
.gradio-container {width: 100% !important; max-width: 1240px !important; margin: 0 auto !important; min-width: 0}
.gradio-container main, .gradio-container .wrap:has(> main) {width: 100% !important; min-width: 0}
.gradio-container main .column {min-width: min(100%, 300px) !important}
.gradio-container .html-container {padding: 4px 0 !important}
@media (max-width: 640px) {.gradio-container .main {padding: 8px 12px !important}
  .class-photos .grid-container {grid-template-columns: repeat(auto-fill, minmax(60px, 1fr)) !important}
  .kshot-bar {grid-template-columns: minmax(4rem, 6.5rem) 1fr 2.6rem !important}}
.kshot-head h1 {font-size: 1.7rem; font-weight: 650; margin: .4rem 0 .2rem}
.kshot-head p {color: var(--quiet); margin: 0}
.kshot-step {display: flex; flex-wrap: wrap; align-items: center; gap: .2rem .6rem; margin-top: .3rem}
.kshot-step b {background: #0072B2; color: white; border-radius: 50%; width: 1.6rem; height: 1.6rem; display: flex;
  align-items: center; justify-content: center; font-size: .85rem; flex: none}
.kshot-step span {font-weight: 600} .kshot-step small {color: var(--quiet)}
.class-card {border: 1px solid var(--border-color-primary); border-radius: 10px; padding: 0; overflow: hidden;
  background: var(--block-background-fill) !important}
.class-card .class-card {border: none}
.class-card > div, .class-card .class-photos {background: var(--block-background-fill) !important; gap: 0 !important}
.class-card .class-name, .class-card .class-name * {border: none !important; box-shadow: none !important;
  background: transparent !important}
.class-card .class-name input {font-weight: 600; font-size: 1.02rem; padding: .55rem 0 .15rem; margin: 0 .9rem .3rem;
  width: calc(100% - 1.8rem); border-bottom: 1px dashed var(--quiet) !important; border-radius: 0}
.class-card .class-name input:focus {border-bottom: 2px solid #0072B2 !important}
.class-photos [data-testid="block-label"] {display: none}
.class-photos .upload-wrapper > button {height: 110px !important; min-height: 0 !important}
.class-photos .source-selection {position: absolute; top: 110px; left: 0; right: 0}
.class-photos .prompt span:first-child {font-size: 0}
.class-photos .prompt span:first-child::after {content: "Drop photographs here"; font-size: 1rem}
.class-photos .grid-wrap {overflow-y: auto !important}
.class-photos .icon-button-wrapper {flex-direction: column}
.class-photos .grid-container {margin-right: 2.6rem}
@media (min-width: 641px) {
  .class-photos .grid-container {grid-template-columns: repeat(auto-fill, minmax(84px, 1fr)) !important}}
#odd:not(:has(.kshot-card)), #answer:not(:has(.kshot-card)) {display: none}
#new {border: 1px solid var(--border-color-primary) !important; border-radius: 10px}
.kshot-card {border: 1px solid var(--border-color-primary); border-radius: 10px; padding: .8rem 1rem;
  background: var(--block-background-fill)}
.kshot-card p {margin: .15rem 0} .kshot-quiet {color: var(--quiet); font-size: .86rem}
.kshot-big {font-size: 1.25rem; font-weight: 650}
.kshot-bar {display: grid; grid-template-columns: minmax(4rem, 10rem) 1fr 3.4rem; gap: .6rem; align-items: center;
  margin: .28rem 0; font-size: .92rem}
.kshot-bar span:first-child {overflow: hidden; text-overflow: ellipsis; white-space: nowrap}
.kshot-bar div {background: var(--border-color-primary); border-radius: 5px; height: .72rem; position: relative}
.kshot-bar i {position: absolute; inset: 0 auto 0 0; border-radius: 5px; background: #0072B2; display: block}
.kshot-bar u {position: absolute; top: 50%; height: 2px; margin-top: -1px; background: #333}
.dark .kshot-bar u {background: #ddd}
.kshot-bar span:last-child {text-align: right; font-variant-numeric: tabular-nums}
.kshot-problem {border-color: #D55E00} .kshot-problem p:first-child {color: #D55E00; font-weight: 600}
.kshot-example {display: flex; gap: .8rem; align-items: center; margin-top: .6rem}
.kshot-example img {width: 84px; height: 84px; object-fit: cover; border-radius: 8px; margin: 0; flex: none}
.kshot-odd {display: grid; grid-template-columns: repeat(auto-fill, minmax(210px, 1fr)); gap: 0 .8rem}
"""

_STEP = _templates.from_string(
    '<div class="kshot-step"><b>{{ number }}</b><span>{{ title }}</span><small>{{ text }}</small></div>'
)
_BARS = """
{% for name, share, low, high in bars %}
<div class="kshot-bar"><span title="{{ name }}">{{ name }}</span>
<div><i style="width:{{ '%.1f' % (100 * share) }}%"></i>
{% if high is not none %}
<u style="left:{{ '%.1f' % (100 * low) }}%;width:{{ '%.1f' % (100 * (high - low)) }}%"></u>
{% endif %}
</div><span>{{ '%.0f' % (100 * share) }} %</span></div>
{% endfor %}
"""
_TRUST = _templates.from_string(
    """<div class="kshot-card"><p class="kshot-quiet">{{ classes }} classes from {{ count }} photographs
{%- if seconds is not none and seconds >= 0.05 %}, learnt in {{ '%.1f' % seconds }} s{% endif %}</p>
{% if estimate is none %}
<p>How well this works cannot be told yet: add a second photograph to some class.</p>
{% else %}
<p class="kshot-big">About {{ '%.0f' % (100 * estimate.accuracy) }} % right</p>
<p class="kshot-quiet">of new photographs like these, as your examples tell: each is recognised by what the others
teach. With so few, it may be anything from {{ '%.0f' % (100 * estimate.low) }} to
{{ '%.0f' % (100 * estimate.high) }} %. The dark lines say the same of each class.</p>
"""
    + _BARS
    + """
<p class="kshot-quiet">{{ estimate.caution }}</p>
{% endif %}
{% for remark in remarks %}<p class="kshot-quiet">Note: {{ remark }}</p>{% endfor %}
</div>"""
)
_ANSWER = _templates.from_string(
    """<div class="kshot-card" data-answer="{{ said }}"><p class="kshot-big">{{ said }}</p>
{% if known is false %}
<p class="kshot-quiet">It resembles your examples less than these resemble each other. If it does show one of the
classes, add it there.</p>
{% endif %}
"""
    + _BARS
    + """
<div class="kshot-example">{% if picture %}<img alt="the nearest example" src="{{ picture }}">{% endif %}
<p class="kshot-quiet">The example that it resembles most is of <b>{{ nearest }}</b>.</p></div></div>"""
)
_ODD = _templates.from_string(
    """<div class="kshot-card"><p>Look at these examples: by what the others teach, they are of another class.</p>
<div class="kshot-odd">
{% for label, predicted, picture in examples %}
<div class="kshot-example">{% if picture %}<img alt="an example of {{ label }}" src="{{ picture }}">{% endif %}
<p class="kshot-quiet">in <b>{{ label }}</b>, looks like <b>{{ predicted }}</b></p></div>
{% endfor %}
</div></div>"""
)
_PROBLEM = _templates.from_string(
    '<div class="kshot-card kshot-problem"><p>This did not work</p><p class="kshot-quiet">{{ text }}</p></div>'
)
_QUIET = _templates.from_string('<div class="kshot-card"><p class="kshot-quiet">{{ text }}</p></div>')


def step(number: int, title: str, text: str) -> str:
    """The heading of a part of the page."""
    return _STEP.render(number=number, title=title, text=text)


def problem(text: str) -> str:
    """An error, in the words of its message."""
    return _PROBLEM.render(text=text)


def nothing_learnt(error: str = "") -> str:
    """What stands in the place of the estimate before there is one."""
    return (
        problem(error) if error else _QUIET.render(text="Add photographs to two classes, and this says how sure it is.")
    )


def no_answer(asked: bool) -> str:
    """What stands in the place of an answer before anything was learnt."""
    return _QUIET.render(text="Nothing was learnt yet: add photographs to two classes first.") if asked else ""


def trust(session: Session) -> str:
    """How many of the examples are recognised, overall and per class, with intervals."""
    estimate, classifier = session.estimate(), session.known_classifier()
    bars = [] if estimate is None else [(each.name, each.accuracy, each.low, each.high) for each in estimate.classes]
    return _TRUST.render(
        classes=len(classifier.classes_),
        count=len(classifier.examples()),
        seconds=session.seconds,
        estimate=estimate,
        bars=bars,
        remarks=session.remarks,
    )


def answer(answer: Answer) -> str:
    """The class, or "none of these", a bar per class, and the nearest example."""
    thumbnail, nearest = answer.nearest
    return _ANSWER.render(
        said="none of these" if answer.known is False else answer.probabilities[0][0],
        known=answer.known,
        bars=[(name, share, None, None) for name, share in answer.probabilities],
        picture=None if thumbnail is None else _data_address(thumbnail),
        nearest=nearest,
    )


def odd(examples: Sequence[tuple[Thumbnail | None, ExampleVerdict]]) -> str:
    """The examples that look like another class; nothing if there are none."""
    shown = [
        (verdict.label, verdict.predicted, None if image is None else _data_address(image))
        for image, verdict in examples
    ]
    return _ODD.render(examples=shown) if shown else ""


def plain(text: str) -> str:
    """Text for a message of the page, which would read it as HTML."""
    return str(_templates.from_string("{{ text }}").render(text=text))


def _data_address(thumbnail: Thumbnail) -> str:
    file = io.BytesIO()
    Image.fromarray(np.squeeze(thumbnail)).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
