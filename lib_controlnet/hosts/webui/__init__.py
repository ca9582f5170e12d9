"""What every WebUI of AUTOMATIC1111's kind has in common: its jobs, pictures, page and callbacks."""
