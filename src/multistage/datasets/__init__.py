"""Data sets behind one contract; see :mod:`multistage.datasets.contract`.

``load`` is the door that labs use: it prepares a data set once and reads it afterwards.
"""

from multistage.datasets.contract import Data
from multistage.datasets.prepare import load

__all__ = ["Data", "load"]
