"""What `retrieve_patches` is made of: the slots of a shard, and how they are settled."""
