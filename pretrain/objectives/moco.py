"""Momentum contrast (MoCo-Eco): two distinct seasons of a location as query and key, both augmented.

Cropped first, then augmented; one space whose negatives are the queue only.

References
----------
He et al., Momentum contrast (2020); Chen et al., MoCo v2 (2020); the code of the SSL4Eco paper.
"""

from pretrain.augment import View
from pretrain.objectives.contrast import MomentumContrast, Space


class Moco(MomentumContrast):
    """One space, one queue."""

    views = (View(0, "after_crop"), View(1, "after_crop"))
    spaces = (Space("all", positive=0),)
