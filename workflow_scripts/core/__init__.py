"""What two or more stages share: grid, bands, seasons, tables, store, catalogs."""
