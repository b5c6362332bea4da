"""What lab 3 needs beside its lesson: a picture of a model, drawn from the model itself."""

from multistage.customising.diagram import Node, draw, outline

__all__ = ["Node", "draw", "outline"]
