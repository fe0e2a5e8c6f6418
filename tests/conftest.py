"""What holds for every test: one thread, because several share the machine and some compare bits."""

from __future__ import annotations

import os

# Read by OpenMP when torch is first imported, here and in the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

torch.set_num_threads(1)
