"""What `select_scenes` is made of: which scenes hold a patch, their order, published choices."""
