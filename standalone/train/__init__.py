"""The command `launch.py train`."""
