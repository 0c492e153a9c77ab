"""What `select_scenes` is made of: windows, which scenes hold a patch, their order, published choices."""
