"""The card under a check: rich text in a notebook, plain text elsewhere."""

import re
from dataclasses import dataclass, field
from html import escape
from typing import Any, Literal

import numpy as np
import pandas as pd

from courseware.exercises.shell import find_notebook

Kind = Literal["passed", "wrong", "open", "hint", "solution"]

# Mid tones: they read on a light page and on a dark one.
_COLOURS = {
    "passed": "#2e9e5b",
    "wrong": "#d1495b",
    "open": "#8a8f98",
    "hint": "#3d85c6",
    "solution": "#3d85c6",
}
_WIDTH = 600  # characters of a shown value
_ROWS = 12  # of a shown table
_ENTRIES = 60  # of a shown array
_CALL = re.compile(r"\w+\([^()]*\)")


@dataclass(frozen=True)
class Card:
    """A heading, a message, and what stands below it.

    Attributes:
        kind: sets the colour and nothing else; the words say the same.
        heading: such as ``"Exercise 2.1: Recall at k. Passed"``.
        message: one or two sentences.
        facts: labelled lines, shown in a fixed-width font: expected, got, your line, printed.
        footer: what to do next.
    """

    kind: Kind
    heading: str
    message: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    footer: str = ""

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": self.text(), "text/html": self.html()}

    def text(self) -> str:
        """Return the card as plain text."""
        lines = [self.heading]
        if self.message:
            lines.append(self.message)
        for label, value in self.facts.items():
            separator = "\n" if "\n" in value else " "
            lines.append(f"{label}:{separator}{_indent(value) if separator != ' ' else value}")
        if self.footer:
            lines.append(self.footer)
        return "\n".join(lines)

    def html(self) -> str:
        """Return the card as HTML; the text keeps the page's own colour."""
        colour = _COLOURS[self.kind]
        parts = [
            f'<div class="courseware-card courseware-{self.kind}" style="border-left: 5px solid '
            f"{colour}; border-radius: 4px; background: {colour}1c; padding: 0.6em 1em; "
            'margin: 0.3em 0; max-width: 60em">',
            f'<div style="font-weight: 600">{escape(self.heading)}</div>',
        ]
        if self.message:
            parts.append(f'<div style="margin-top: 0.3em">{escape(self.message)}</div>')
        if self.facts:  # labels in one column: what was expected stands above what came
            parts.append(
                '<div style="display: grid; grid-template-columns: max-content 1fr; '
                'column-gap: 1.2em; row-gap: 0.3em; margin-top: 0.4em; align-items: baseline">'
            )
            for label, value in self.facts.items():
                label = f'<div style="opacity: 0.75">{escape(label)}</div>'
                parts.append(label + _fixed("pre", value))
            parts.append("</div>")
        if self.footer:
            footer = _CALL.sub(lambda call: _fixed("code", call[0]), self.footer)
            parts.append(f'<div style="margin-top: 0.5em">{footer}</div>')
        return "\n".join([*parts, "</div>"])

    def show(self) -> None:
        """Show the card under the cell, or in the terminal."""
        if find_notebook() is not None:
            from IPython.display import display

            display(self)
            return
        from rich.console import Console
        from rich.panel import Panel
        from rich.text import Text

        Console().print(Panel(Text(self.text()), border_style=_COLOURS[self.kind]))


def shown(value: Any) -> str:
    """Return ``value`` as short text for a card, never raising."""
    try:
        text = value if isinstance(value, str) else repr(value)
    except Exception as error:
        text = f"<a {type(value).__name__} whose repr raises {type(error).__name__}>"
    return text if len(text) <= _WIDTH else text[:_WIDTH] + " …"


def readable(value: Any) -> str:
    """Return ``value`` as an attendee would write it: arrays and tables shortened."""
    try:
        if isinstance(value, pd.DataFrame | pd.Series):
            return value.to_string(max_rows=_ROWS)
        if isinstance(value, dict) and any(isinstance(v, pd.DataFrame) for v in value.values()):
            return named(value)
        if hasattr(value, "__array__") and not isinstance(value, type | np.generic):
            value = np.asarray(value)
            if value.ndim and not value.size:
                return f"[] of shape {value.shape}"
            return np.array2string(value, separator=", ", threshold=_ENTRIES, max_line_width=88)
    except Exception:
        return shown(value)
    return shown(repr(value.item()) if isinstance(value, np.generic) else value)


def named(values: dict[str, Any]) -> str:
    """Return ``name = value`` for each of ``values``; what has more lines begins a line."""
    parts = []
    for name, value in values.items():
        text = readable(value)
        between = "\n" if "\n" in text else " "
        parts.append(f"{name} ={between}{text}")
    return "\n".join(parts)


def _fixed(tag: str, text: str) -> str:
    style = "margin: 0; padding: 0; background: transparent; color: inherit; white-space: pre-wrap"
    return f'<{tag} style="{style}">{escape(text, quote=False)}</{tag}>'


def _indent(text: str) -> str:
    return "\n".join("    " + line for line in text.splitlines())
