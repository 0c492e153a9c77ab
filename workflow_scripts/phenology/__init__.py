"""Kernels of the phenology estimation."""
