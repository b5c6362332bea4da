"""Exercises that are checked: ``check("2.1", answer)``, ``hint("2.1")``, ``solve("2.1")``.

The course says in ``course.toml`` where its exercises stand; the engine runs their checks and shows
the result as a card.
"""

from courseware.exercises.engine import Exercise, Wrong, check, hint, solve

__all__ = ["Exercise", "Wrong", "check", "hint", "solve"]
