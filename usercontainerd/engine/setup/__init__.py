"""What ends up where when this project is installed, and ``setup``."""
