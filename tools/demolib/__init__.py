"""What ``./demo`` is made of: the places where it can run, and the story that it tells there."""
