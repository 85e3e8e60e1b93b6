"""The same as `dlzoo sweep`: many runs, a grid or a search"""

import sys

from dlzoo.cli import main

if __name__ == "__main__":
    sys.exit(main(["sweep", *sys.argv[1:]]))
