"""Exercises that are checked: ``check("2.1", answer)``, ``hint("2.1")``, ``solve("2.1")``.

Each section's checks stand in ``multistage.exercises.section_N`` as ``EXERCISES``; the engine runs
them and shows the result as a card.
"""

from multistage.exercises.engine import Exercise, Wrong, check, hint, solve

__all__ = ["Exercise", "Wrong", "check", "hint", "solve"]
