"""The same as `dlzoo evaluate`: measure a run on its test split"""

import sys

from dlzoo.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
