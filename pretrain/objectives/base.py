"""What the training loop relies on in an objective."""

from collections.abc import Sequence
from typing import ClassVar, Self

from torch import Tensor, nn

from pretrain.augment import View
from pretrain.data import Batch
from pretrain.encoders import Encoder
from pretrain.recipes import Options


class Objective(nn.Module):
    """Base of the objectives: what the loop relies on."""

    views: ClassVar[tuple[View, ...]]
    needs_masks: ClassVar[bool] = False
    side_columns: ClassVar[tuple[str, ...]] = ()
    encoder: Encoder

    @classmethod
    def build(cls, encoder: Encoder, options: Options) -> Self:
        """Build the objective, taking from the options what it needs."""
        raise NotImplementedError

    @property
    def n_seasons(self) -> int:
        """Seasons to draw per location."""
        return 1 + max(view.season for view in self.views)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the loss of a batch whose `views` are filled in, and what is to be logged."""
        raise NotImplementedError

    def before_step(self) -> None:
        """Update before the forward pass."""

    def look_ahead(self, parts: Sequence[Batch]) -> None:
        """See all of the step's batch, in the parts that will be passed forward one by one.

        An objective whose losses compare samples computes here, without gradients, what a part needs
        of the others, so that the result is the same in however many parts a batch is taken.
        """

    def after_step(self) -> None:
        """Update after the optimizer's step."""
