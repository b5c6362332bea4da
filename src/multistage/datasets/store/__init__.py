"""The simulated shop: the default data set, which knows the best attainable score.

:mod:`multistage.datasets.store.world` says how it works (formulas and parameters),
:mod:`multistage.datasets.store.events` draws its events, :mod:`multistage.datasets.store.files`
writes any number of them to files, :mod:`multistage.datasets.store.truth` is what it knows of
itself.
"""

from multistage.datasets.store.events import simulate, simulate_block
from multistage.datasets.store.truth import StoreTruth
from multistage.datasets.store.world import StoreSettings, World

__all__ = ["StoreSettings", "StoreTruth", "World", "simulate", "simulate_block"]
