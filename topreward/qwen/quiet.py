"""Loading without the libraries' chatter: no progress bars, no warnings between the lines of who asked.

Whether a checkpoint fits is checked by this package and told as an error, so what the libraries say about it would
only say it twice. Their errors pass. Knows nothing of checkpoints.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers.utils import logging as transformers_logging

TALKERS = ("transformers", "huggingface_hub", "peft", "accelerate", "bitsandbytes", "torch")
_ONE_AT_A_TIME = threading.RLock()  # what is set here is the whole process's


@contextmanager
def quiet() -> Iterator[None]:
    """Within it the libraries that load checkpoints print errors only; afterwards all is as it was."""
    with _ONE_AT_A_TIME, warnings.catch_warnings(), ExitStack() as after:
        warnings.simplefilter("ignore")
        for name in TALKERS:
            logger = logging.getLogger(name)
            after.callback(logger.setLevel, logger.level)
            logger.setLevel(max(logger.level, logging.ERROR))
        # transformers' switch turns the hub's bars as well, in both directions: the hub's own state is set last.
        if not are_progress_bars_disabled():
            after.callback(enable_progress_bars)
        if transformers_logging.is_progress_bar_enabled():
            after.callback(transformers_logging.enable_progress_bar)
            transformers_logging.disable_progress_bar()
        disable_progress_bars()
        yield
