"""Draw the picture of the four stages: ``python docs/draw_stages.py`` from the course folder."""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch, Polygon

STAGES = [
    ("retrieve", "two-tower + FAISS", "cheap, wide net", "#4c78a8"),
    ("filter", "bought, unavailable", "rules, back-filled", "#54a24b"),
    ("score", "DLRM", "costly, precise", "#f58518"),
    ("order", "the whole list", "variety, chance", "#b279a2"),
]
LEFT = ["catalogue\n1,500 products", "100", "100", "100", "10"]


def main() -> None:
    """Write ``notebooks/images/four-stages.png``."""
    figure, axis = plt.subplots(figsize=(11, 3.1), layout="constrained")
    heights = [1.0, 0.62, 0.52, 0.42, 0.18]
    for place, (name, part, idea, colour) in enumerate(STAGES):
        left, right = 2.0 + 2.3 * place, 3.6 + 2.3 * place
        axis.add_patch(
            Polygon(
                [
                    (left - 0.7, heights[place]),
                    (left, heights[place + 1]),
                    (left, -heights[place + 1]),
                    (left - 0.7, -heights[place]),
                ],
                color="#dddddd",
                zorder=0,
            )
        )
        axis.add_patch(
            FancyBboxPatch(
                (left, -0.75), right - left, 1.5, boxstyle="round,pad=0.02", color=colour
            )
        )
        middle = (left + right) / 2
        axis.text(middle, 0.38, name, ha="center", va="center", color="white", size=15, weight=700)
        axis.text(middle, -0.02, part, ha="center", va="center", color="white", size=10.5)
        axis.text(
            middle, -0.42, idea, ha="center", va="center", color="white", size=9, style="italic"
        )
        axis.text(left - 0.35, -1.12, LEFT[place], ha="center", va="center", size=10)
    end = 3.6 + 2.3 * 3
    axis.add_patch(
        Polygon([(end, 0.18), (end + 0.5, 0.18), (end + 0.5, -0.18), (end, -0.18)], color="#dddddd")
    )
    axis.text(end + 0.25, -1.12, LEFT[4], ha="center", va="center", size=10)
    axis.text(end + 0.6, 0, "a page\nfor one\nperson", va="center", size=11)
    axis.set(xlim=(0.9, end + 1.5), ylim=(-1.4, 1.15))
    axis.axis("off")
    folder = Path("notebooks/images")
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "four-stages.png", dpi=130)


if __name__ == "__main__":
    main()
