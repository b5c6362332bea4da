"""The classroom: notebooks from sources, exercises, the command ``lab``, seats.

It knows no recommender. What it needs of a course stands in ``course.toml``.
"""
