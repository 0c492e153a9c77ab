"""Parts of what is published: Croissant description, STAC items, citation and licenses.

`layout` puts files into a folder, and writes what datasets and models have in common.
"""
