"""A model's blocks as a tree, and the tree as a picture.

The tree is read from the model: a ``SequentialBlock`` becomes a sequence, a ``ParallelBlock`` its
branches side by side, and everything else one box. Nothing is drawn that the model does not have.
"""

from dataclasses import dataclass
from typing import Any

LEAF, SEQUENCE, PARALLEL = "leaf", "sequence", "parallel"
_WIDTH, _HEIGHT = 2.0, 0.62  # of a box
_GAP, _MARGIN = 0.7, 0.18  # between two in a sequence, and between two side by side
_COLOURS = {"EmbeddingTable": "#dbe9f6", "Dense": "#e6f2dc", "BinaryOutput": "#fbe3d1"}
_OTHERS = "#f0edf7"


@dataclass(frozen=True)
class Node:
    """One box, or several in a row or side by side.

    Attributes:
        kind: ``"leaf"``, ``"sequence"`` or ``"parallel"``.
        label: the class of the block, and for a layer its size.
        children: in order; none for a leaf.
    """

    kind: str
    label: str
    children: tuple["Node", ...] = ()

    @property
    def leaves(self) -> list[str]:
        """The labels of all boxes, in the order of the model."""
        if self.kind == LEAF:
            return [self.label]
        return [label for child in self.children for label in child.leaves]

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the drawing."""
        if self.kind == LEAF:
            return _WIDTH, _HEIGHT
        widths, heights = zip(*(child.size for child in self.children), strict=True)
        if self.kind == SEQUENCE:
            return sum(widths) + _GAP * (len(widths) - 1), max(heights)
        return max(widths), sum(heights) + _MARGIN * (len(heights) - 1)


def outline(block: Any) -> Node:
    """Return the tree of a Merlin model or block.

    Args:
        block: an ``mm.Model`` or any Keras layer; built or not.
    """
    import merlin.models.tf as mm
    from merlin.models.tf.core.combinators import SequentialBlock

    if isinstance(block, mm.Model):
        return _sequence("Model", block.blocks)
    if isinstance(block, mm.ParallelBlock) and block.parallel_values:
        branches = tuple(outline(branch) for branch in block.parallel_values)
        return branches[0] if len(branches) == 1 else Node(PARALLEL, _name(block), branches)
    if isinstance(block, SequentialBlock):
        return _sequence(_name(block), block.layers)
    return Node(LEAF, _name(block) + _detail(block))


def draw(block: Any, scale: float = 0.55) -> Any:
    """Draw a model or block from left to right and return the matplotlib figure.

    Args:
        block: as for :func:`outline`.
        scale: inches for one unit of the drawing; a box is two units wide.
    """
    import matplotlib.pyplot as plt

    tree = outline(block)
    width, height = tree.size
    figure, axis = plt.subplots(figsize=(width * scale, height * scale * 1.1), layout="constrained")
    _place(axis, tree, 0.0, height / 2)
    axis.set(xlim=(-0.1, width + 0.1), ylim=(-0.1, height + 0.1))
    axis.axis("off")
    return figure


def _sequence(label: str, layers: Any) -> Node:
    children: list[Node] = []
    for layer in layers:
        child = outline(layer)
        children += child.children if child.kind == SEQUENCE else (child,)
    return children[0] if len(children) == 1 else Node(SEQUENCE, label, tuple(children))


def _name(block: Any) -> str:
    name = type(block).__name__.lstrip("_")
    return {"NoOp": "pass on", "TabularBlock": "concat"}.get(name, name)


def _detail(block: Any) -> str:
    """The size of a layer, or which column it is for."""
    if type(block).__name__ == "EmbeddingTable":
        return f"\n{', '.join(block.features)} → {block.dim}"
    dense = getattr(block, "dense", block)
    units = getattr(dense, "units", None)
    if type(block).__name__.endswith("Dense") and units:
        return f" {units}"
    names = getattr(block, "feature_names", None)
    names = [names] if isinstance(names, str) else names
    if isinstance(names, list | set | tuple) and 0 < len(names) <= 2:
        return f"\n{', '.join(sorted(names))}"
    return ""


Points = list[tuple[float, float]]


def _place(axis: Any, node: Node, left: float, middle: float) -> tuple[Points, Points]:
    """Draw ``node`` and return where lines enter it and where they leave it."""
    if node.kind == LEAF:
        return _box(axis, node.label, left, middle)
    entries: Points = []
    exits: Points = []
    if node.kind == PARALLEL:
        top = middle + node.size[1] / 2
        for child in node.children:
            width, height = child.size
            # a short branch stands at the right, beside the ends of the longer ones
            into, out = _place(axis, child, left + node.size[0] - width, top - height / 2)
            entries, exits, top = entries + into, exits + out, top - height - _MARGIN
        if len(exits) > 2 and all(child.kind == LEAF for child in node.children):
            return _frame(axis, left, middle, *node.size)
        return entries, exits
    for position, child in enumerate(node.children):
        into, out = _place(axis, child, left, middle)
        for start in exits:
            for end in into:
                arrow = {"arrowstyle": "->", "color": "0.55", "lw": 0.8}
                axis.annotate("", end, start, arrowprops=arrow, zorder=0)
        entries = entries if position else into
        exits, left = out, left + child.size[0] + _GAP
    return entries, exits


def _frame(
    axis: Any, left: float, middle: float, width: float, height: float
) -> tuple[Points, Points]:
    """A frame around boxes of one kind: lines lead to the frame, not to each of them."""
    from matplotlib.patches import Rectangle

    margin = _MARGIN / 2
    corner = (left - margin, middle - height / 2 - margin)
    axis.add_patch(
        Rectangle(
            corner,
            width + 2 * margin,
            height + 2 * margin,
            fill=False,
            edgecolor="0.75",
            linestyle=":",
        )
    )
    return [(left - margin, middle)], [(left + width + margin, middle)]


def _box(axis: Any, label: str, left: float, middle: float) -> tuple[Points, Points]:
    from matplotlib.patches import FancyBboxPatch

    kind = label.split()[0]
    axis.add_patch(
        FancyBboxPatch(
            (left, middle - _HEIGHT / 2),
            _WIDTH,
            _HEIGHT,
            boxstyle="round,pad=0,rounding_size=0.1",
            facecolor=_COLOURS.get(kind, _OTHERS),
            edgecolor="0.6",
            zorder=2,
        )
    )
    axis.text(left + _WIDTH / 2, middle, label, ha="center", va="center", fontsize=7, zorder=3)
    return [(left, middle)], [(left + _WIDTH, middle)]
