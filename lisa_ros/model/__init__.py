"""The LISA network, its checkpoints, prompts and preprocessing."""

import logging

# transformers imports torchao where it finds it, and the two then complain about kernels for other
# hardware and about each other; none of it is for the person at the terminal
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)
