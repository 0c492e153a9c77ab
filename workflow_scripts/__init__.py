"""The stages of the workflow: one module per Snakemake rule."""
