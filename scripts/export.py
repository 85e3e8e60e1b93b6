"""The same as `dlzoo export`: write a run as ONNX"""

import sys

from dlzoo.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
