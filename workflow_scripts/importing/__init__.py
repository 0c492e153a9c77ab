"""Published archives read into the patch store: safe unpacking, and one module per format."""
