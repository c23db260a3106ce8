"""A page of texts that a model wrote, each token with the probability that the text up to it is hallucinated.

It has no script and makes no request: what is shown on hover is a title, and a table holds the same for all who cannot
hover.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import jinja2

from bluffscope import __version__

LEVELS: Final = 10
"""Colours between probability 0 and 1."""


class Token(NamedTuple):
    """A token of a text."""

    text: str
    probability: float
    id: int
    logit: float

    @property
    def level(self) -> int:
        """Its colour."""
        return min(int(self.probability * LEVELS), LEVELS - 1)


@dataclass(frozen=True)
class Text:
    """A prompt and what the model made of it."""

    prompt: str
    tokens: Sequence[Token]


_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1b1b1f; --paper: #fff; --dim: #5c5c66; --line: #d5d5dc; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececf1; --paper: #17171b; --dim: #a2a2ad; --line: #3a3a42; } }
body { margin: 2rem auto; max-width: 46rem; padding: 0 1rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.6 system-ui, sans-serif; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.05rem; margin-top: 2rem; }
.dim, caption { color: var(--dim); }
.text { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 1.1rem; line-height: 2; }
.text span, .scale span { border-radius: .2rem; padding: .15rem 0; }
.scale span { padding: .1rem .45rem; }
.p3, .p4 { background: #fff3c4; color: #1b1b1f; }
.p5, .p6 { background: #ffd98a; color: #1b1b1f; }
.p7, .p8 { background: #ffad70; color: #1b1b1f; }
.p9 { background: #f7786b; color: #1b1b1f; text-decoration: underline; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .2rem .7rem; text-align: right; }
th:nth-child(2), td:nth-child(2) { text-align: left; white-space: pre; font-family: ui-monospace, monospace; }
"""
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'sha256-{{ hash }}'; base-uri 'none'">
<title>Watched by the detector {{ name }}</title>
<style>{{ style | safe }}</style>
</head>
<body>
<main>
<h1>Watched by the detector {{ name }}</h1>
<p>Written by {{ model }}. At each token, the probability {{ says }}; {{ calibrated }}</p>
<p class="scale">Colours: <span>below 0.3</span> <span class="p3">0.3</span> <span class="p5">0.5</span>
<span class="p7">0.7</span> <span class="p9">0.9</span></p>
{% for text in texts %}
<section aria-labelledby="t{{ loop.index }}">
<h2 id="t{{ loop.index }}">Text {{ loop.index }}</h2>
<p class="text"><span class="dim">{{ text.prompt }}</span>
{%- for token in text.tokens -%}
<span class="p{{ token.level }}" title="{{ '%.3f' | format(token.probability) }}">{{ token.text }}</span>
{%- endfor %}</p>
<details>
<summary>Table of its {{ text.tokens | length }} tokens</summary>
<div class="scroll" tabindex="0" role="region" aria-label="Tokens of text {{ loop.index }}">
<table>
<caption>Each token with its probability</caption>
<thead><tr><th scope="col">Place</th><th scope="col">Token</th><th scope="col">Probability</th>
<th scope="col">Logit</th><th scope="col">Id</th></tr></thead>
<tbody>
{% for token in text.tokens -%}
<tr><td>{{ loop.index }}</td><td>{{ token.text }}</td><td>{{ '%.3f' | format(token.probability) }}</td>
<td>{{ '%.3f' | format(token.logit) }}</td><td>{{ token.id }}</td></tr>
{% endfor -%}
</tbody>
</table>
</div>
</details>
</section>
{% endfor %}
<p class="dim">Bluffscope {{ version }}</p>
</main>
</body>
</html>
"""


def render_watch_page(name: str, model: str, says: str, texts: Sequence[Text]) -> bytes:
    """The page as UTF-8.

    Args:
        name: of the detector.
        model: that wrote.
        says: what the probability at a token is.
        texts: in their order.
    """
    environment = jinja2.Environment(loader=jinja2.BaseLoader(), autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(_PAGE).render(
        name=name,
        model=model,
        says=says,
        calibrated="it holds for texts like those of the training.",
        texts=texts,
        version=__version__,
        style=_STYLE,
        hash=base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode(),
    )
    # A lone surrogate, which UTF-8 cannot encode, becomes an escape instead of an error.
    return page.encode("utf-8", "backslashreplace")
