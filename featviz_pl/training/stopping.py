"""How a Trainer's run ended: by itself, by Ctrl-C or by SIGTERM."""

from __future__ import annotations

import signal

INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM
