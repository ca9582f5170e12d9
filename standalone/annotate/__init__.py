"""`launch.py annotate`: preprocessors over folders, globs and WebDataset shards."""
