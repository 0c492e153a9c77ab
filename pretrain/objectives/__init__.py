"""What is learned: objectives by the name the configuration uses.

An objective is a module that owns its encoder, heads, buffers and update rules and declares what it
needs. The loop (`pretrain.train`) asks nothing else of it. Season, day of the year, longitude and latitude come with every batch; bands
are the encoder's:

- ``build(encoder, options)``: makes it;
- `views`: the network inputs, made of the seasons drawn for each sample;
- `n_seasons`: distinct seasons to draw per location;
- `needs_masks`: whether `batch.masks` is to tell where each view has data;
- `side_columns`: columns of the model's side table, joined by `location_id`, wanted as `batch.side`;
- ``forward(batch)``: a dict of scalar tensors, `loss` among them (what else is in it is logged);
- ``before_step()``, ``after_step()``: updates before the forward pass and after the optimizer's step;
- ``look_ahead(parts)``: before the forward passes of a step, what they need of the whole batch;
- `encoder`: what is written to `encoder.safetensors`.
"""

from collections.abc import Mapping

from pretrain.objectives.base import Objective
from pretrain.objectives.moco import Moco
from pretrain.objectives.seco import Seco

OBJECTIVES: Mapping[str, type[Objective]] = {"seco": Seco, "moco": Moco}
