"""From the one source of each lab to its two notebooks: solved and executed, and the attendee's."""

from courseware.authoring.build import attendee_file, build, drift

__all__ = ["attendee_file", "build", "drift"]
