"""From a file to a filled network: read safely, one naming of the keys, detection as data."""
