"""The main job: python train.py experiment=cifar10_resnet"""

import sys

from dlzoo.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
