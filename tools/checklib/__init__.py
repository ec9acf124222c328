"""What ``./check`` is made of: its own tools, and the lanes in which tests run."""
