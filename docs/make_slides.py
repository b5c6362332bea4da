"""Make slides of lab 1: one HTML file that holds its pictures and asks the network for nothing.

``python docs/make_slides.py build/slides.html`` (``make slides``). A slide is a text cell of
the solved notebook with what follows it. Exercises are left out, code is folded. Arrow keys turn
the slides.
"""

import base64
import re
import sys
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
body {{ margin: 0; font: 1.35rem/1.4 system-ui, sans-serif; color: #222; }}
section {{ box-sizing: border-box; height: 100vh; padding: 5vh 8vw; overflow: auto;
  scroll-snap-align: start; border-bottom: 1px solid #ddd; }}
h1, h2, h3 {{ line-height: 1.15; color: #14505c; }}
img {{ max-width: 100%; max-height: 65vh; }}
pre, code {{ font: 0.9em/1.4 ui-monospace, monospace; }}
pre {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: 0.8em; }}
td, th {{ padding: 0.2em 0.8em; text-align: right; border-bottom: 1px solid #ddd; }}
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


def make_slides(notebook: NotebookNode) -> str:
    """Return the page for an executed notebook."""
    from pygments.formatters import HtmlFormatter

    slides: list[list[str]] = []
    exercise = False
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for heading, text in _parts(cell.source):
                exercise = exercise if not heading else "Exercise" in heading
                if not exercise:
                    slides.append([_html(nbformat.v4.new_markdown_cell(text))])
        elif not exercise and "parameters" not in cell.metadata.get("tags", []):
            slides[-1].append(_code(cell))
    style = HtmlFormatter().get_style_defs(".highlight")
    title = notebook.cells[0].source.splitlines()[0].lstrip("# ")
    body = "\n".join(f"<section>{''.join(slide)}</section>" for slide in slides)
    return PAGE.format(title=title, style=style, slides=body)


def _parts(markdown: str) -> list[tuple[str, str]]:
    """Split at headings; the first part may have none."""
    markdown = MERMAID.sub(PICTURE, markdown)
    pieces = re.split(r"^(?=#{1,3} )", markdown, flags=re.MULTILINE)
    heads = [re.match(r"#{1,3} (.*)", piece) for piece in pieces]
    return [
        (head[1] if head else "", piece)
        for head, piece in zip(heads, pieces, strict=True)
        if piece.strip()
    ]


def _code(cell: NotebookNode) -> str:
    source = nbformat.v4.new_code_cell(cell.source)
    shown = nbformat.v4.new_code_cell("", outputs=cell.outputs)
    folded = f"<details><summary>code</summary>{_html(source)}</details>"
    return folded + (_html(shown) if cell.outputs else "")


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
