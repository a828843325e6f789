"""model2vec's own distillation of a trunk: ``python static.py TRUNK TARGET``."""

import sys

from model2vec.distill import distill

distill(sys.argv[1], device="cpu").save_pretrained(sys.argv[2])
