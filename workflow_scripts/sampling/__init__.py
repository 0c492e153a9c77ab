"""What `sample_locations` is made of: points read, the frame of cells, the draw."""
