"""How well pictures follow their maps, from the command line."""
