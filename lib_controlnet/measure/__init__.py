"""How well a picture follows its map: one meter for jobs, the page, the API, the trainer and the demo."""
