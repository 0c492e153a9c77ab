"""Everything that imports torch: pretraining, encoders, and (in `downstream`) their evaluation."""
