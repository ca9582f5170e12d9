"""One folder per preprocessor, or per family of them that share a network; `registry.discover` finds them."""
