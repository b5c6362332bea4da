"""What the command ``lab`` gets from this course; ``course.toml`` names it."""
