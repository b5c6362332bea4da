"""The exercises of this course, one module a section, each with a list ``EXERCISES``."""
