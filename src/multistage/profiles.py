"""Sizes: the same labs on CI, on a laptop and on a GPU, with no edit."""

from dataclasses import dataclass

from multistage.errors import CourseError


@dataclass(frozen=True)
class Profile:
    """Sizes. A lab depends on the machine only through these."""

    name: str
    seed: int = 42
    # the simulated shop
    users: int = 8_000
    products: int = 1_500
    # training
    batch_size: int = 4_096  # rows, for the ranking models
    epochs: int = 5
    retrieval_batch_size: int = 512
    retrieval_epochs: int = 3
    retrieval_learning_rate: float = 4e-3
    ranking_epochs: int = 2
    negatives: int = 30  # per user, when a ranker is trained for a pipeline
    tree_device: str = "cpu"  # XGBoost's; it does not look for a GPU by itself
    # serving
    candidates: int = 100  # products per user that the ranker scores
    requests: int = 300


PROFILES = {
    "ci": Profile(
        "ci",
        users=2_000,
        products=400,
        batch_size=1_024,
        epochs=1,
        retrieval_epochs=2,
        ranking_epochs=1,
        requests=100,
    ),
    "laptop": Profile("laptop"),
    "gpu": Profile(
        "gpu",
        users=20_000,  # memory grows with users times products
        products=3_000,
        batch_size=8_192,
        retrieval_batch_size=1_024,
        tree_device="cuda",
        requests=2_000,
    ),
}


def get_profile(name: str) -> Profile:
    """Return the profile called ``name``.

    Raises:
        CourseError: if there is none of that name.
    """
    try:
        return PROFILES[name]
    except KeyError:
        known = ", ".join(PROFILES)
        raise CourseError(f"Unknown profile {name!r}: choose one of {known}.") from None
