"""From the one source of each lab to its two notebooks: solved and executed, and the attendee's."""

from multistage.authoring.build import build, drift
from multistage.authoring.sections import Section, find_sections

__all__ = ["Section", "build", "drift", "find_sections"]
