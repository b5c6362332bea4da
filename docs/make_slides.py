"""Make slides of lab 1: one HTML file that holds its pictures and asks the network for nothing.

``python docs/make_slides.py build/slides.html`` (``make slides``). A slide has a heading, the text
that leads to a result, and beside it the result and its reading. Exercises are left out, code is
folded. Arrow keys turn the slides.
"""

import base64
import re
import sys
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
LAB = ROOT / "labs_solutions" / "01-introduction.ipynb"
IMAGES = ROOT / "notebooks"
MERMAID = re.compile(r"```mermaid\n.*?```", re.DOTALL)
PICTURE = "![From a catalogue to a page: retrieve, filter, score, order](images/four-stages.png)"
# nbconvert's links to a heading itself
ANCHOR = re.compile(r'<a class="anchor-link".*?</a>', re.DOTALL)

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
html {{ scroll-snap-type: y mandatory; }}
body {{ margin: 0; font: clamp(0.8rem, 1.55vw, 2rem)/1.4 system-ui, sans-serif; color: #222; }}
section {{ box-sizing: border-box; height: 100vh; padding: 4vh 6vw; overflow: auto;
  scroll-snap-align: start; border-bottom: 1px solid #ddd; }}
section > div {{ display: flex; gap: 4vw; }}
.text {{ flex: 1; min-width: 0; }}
.shown {{ flex: 1.4; min-width: 0; }}
h1, h2, h3 {{ margin: 0 0 0.3em; line-height: 1.15; color: #14505c; }}
p {{ margin: 0.6em 0; }}
img {{ max-width: 100%; max-height: 70vh; }}
.text img {{ max-height: 30vh; }}
pre, code {{ font: 0.9em/1.4 ui-monospace, monospace; }}
pre {{ white-space: pre-wrap; }}
table {{ border-collapse: collapse; font-size: 0.7em; }}
td, th {{ padding: 0.2em 0.5em; text-align: right; border-bottom: 1px solid #ddd; }}
details {{ font-size: 0.7em; color: #555; }}
{style}
</style></head><body>
{slides}
<script>
addEventListener("keydown", event => {{
  const step = {{ArrowRight: 1, PageDown: 1, ArrowLeft: -1, PageUp: -1}}[event.key];
  if (!step) return;
  event.preventDefault();
  const slides = [...document.querySelectorAll("section")];
  const here = slides.findIndex(slide => slide.getBoundingClientRect().bottom > 10);
  slides[Math.min(Math.max(here + step, 0), slides.length - 1)].scrollIntoView();
}});
</script></body></html>
"""


@dataclass
class Slide:
    """A heading, text that leads to a result, and the result with the text that reads it (HTML)."""

    heading: str
    text: str = ""
    shown: str = ""

    def add(self, markdown: str) -> None:
        """Put text where it belongs: before the result, or under it."""
        html = _html(nbformat.v4.new_markdown_cell(markdown))
        if self.shown:
            self.shown += html
        else:
            self.text += html

    def html(self) -> str:
        """Return it as a section of the page."""
        heading = _html(nbformat.v4.new_markdown_cell(self.heading))
        columns = f'<div class="text">{self.text}</div>'
        if self.shown:
            columns += f'<div class="shown">{self.shown}</div>'
        return f"<section>{heading}<div>{columns}</div></section>"


def make_slides(notebook: NotebookNode) -> str:
    """Return the page for an executed notebook."""
    from pygments.formatters import HtmlFormatter

    slides: list[Slide] = []
    exercise = False
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            parts = _parts(cell.source)
            for heading, text in parts:
                exercise = exercise if not heading else "Exercise" in heading
                if exercise:
                    continue
                # text that reads a result stays beside it; what leads to another begins a slide
                leads = (heading, text) == parts[-1] and _shows(notebook.cells, index)
                if heading or (slides[-1].shown and leads):
                    slides.append(Slide(heading or slides[-1].heading))
                slides[-1].add(text)
        elif not exercise and cell.get("outputs"):
            slides[-1].shown += _code(cell)
    style = HtmlFormatter().get_style_defs(".highlight")
    title = notebook.cells[0].source.splitlines()[0].lstrip("# ")
    body = "\n".join(slide.html() for slide in slides)
    return PAGE.format(title=title, style=style, slides=body)


def _shows(cells: list[NotebookNode], index: int) -> bool:
    """Whether a cell between text cell ``index`` and the next text has an output."""
    following = takewhile(lambda cell: cell.cell_type == "code", cells[index + 1 :])
    return any(cell.outputs for cell in following)


def _parts(markdown: str) -> list[tuple[str, str]]:
    """Split into headings, each with the text under it; the first may be missing."""
    markdown = MERMAID.sub(PICTURE, markdown)
    pieces = re.split(r"^(#{1,3} .*)$", markdown, flags=re.MULTILINE)
    parts = zip(["", *pieces[1::2]], map(str.strip, pieces[::2]), strict=True)
    return [(heading, text) for heading, text in parts if heading or text]


def _code(cell: NotebookNode) -> str:
    source = nbformat.v4.new_code_cell(cell.source)
    shown = nbformat.v4.new_code_cell("", outputs=cell.outputs)
    return f"<details><summary>code</summary>{_html(source)}</details>{_html(shown)}"


def _html(cell: NotebookNode) -> str:
    exporter = HTMLExporter(template_name="basic", exclude_input_prompt=True)
    exporter.exclude_output_prompt = True
    exporter.exclude_input = cell.cell_type == "code" and not cell.source
    html, _ = exporter.from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    return re.sub(r'src="(images/[^"]+\.png)"', _embedded, ANCHOR.sub("", html))


def _embedded(match: re.Match[str]) -> str:
    content = base64.b64encode((IMAGES / match[1]).read_bytes()).decode()
    return f'src="data:image/png;base64,{content}"'


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(make_slides(nbformat.read(LAB, as_version=4)))
    print(f"{target}: open it in a browser; arrow keys turn the slides")
