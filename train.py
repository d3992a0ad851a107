"""Trains what a configuration says: ``python train.py --config=configs/digits.py``.

The same as ``sphemb train``.
"""

import sys

from sphemb.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
