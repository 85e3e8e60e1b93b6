"""python -m dlzoo"""

import sys

from dlzoo.cli import main

sys.exit(main())
