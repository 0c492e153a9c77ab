"""Seasonal contrast (SeCo-Eco): three embedding spaces over the seasons of a location.

Of three distinct seasons s1, s2, s3 (with two available s3 = s2): the query is s1, cropped only; key 0
is s2 augmented, key 1 is s3 cropped only, key 2 is s1 augmented. Every view gets its own random crop,
after the augmentation. Negatives besides the queue are the other two key views of the whole batch in
spaces 1 and 2, the sample's own other views among them.

References
----------
Mañas et al., Seasonal contrast (2021); the code of the SSL4Eco paper.
"""

from pretrain.augment import View
from pretrain.objectives.contrast import MomentumContrast, Space


class Seco(MomentumContrast):
    """Three spaces, three queues."""

    views = (View(0, "none"), View(1, "before_crop"), View(2, "none"), View(0, "before_crop"))
    spaces = (
        Space("all", positive=0),  # invariant to season and augmentation
        Space("season", positive=1, negatives=(0, 2)),  # invariant to season only
        Space("augmentation", positive=2, negatives=(0, 1)),  # invariant to augmentation only
    )
