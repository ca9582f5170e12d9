"""What other extensions import of a ControlNet extension, under the peers' names."""
