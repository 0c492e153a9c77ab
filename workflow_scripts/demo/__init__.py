"""The made world: a seeded, offline stand-in for the Earth, its satellites and their catalogs.

Only `rules/demo.smk`, tests and benchmarks use it. It shows that the code works and learns; it
says nothing about the Earth.
"""
