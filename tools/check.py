"""What ``./check`` runs."""

import sys

from checklib.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
