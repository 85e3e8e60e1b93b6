"""The same as `dlzoo predict`: label pictures with a run"""

import sys

from dlzoo.cli import main

if __name__ == "__main__":
    sys.exit(main(["predict", *sys.argv[1:]]))
