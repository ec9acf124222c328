"""What ``./demo`` runs."""

import sys

from demolib.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
