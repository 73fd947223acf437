"""Exit codes of the commands."""

from __future__ import annotations

import signal

USAGE_ERROR = 2  # something that the user can mend
SOME_FAILED = 3  # a sweep ended, and some of its pictures failed
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM
STOPPED = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}  # a run; the exit code is 128 and the signal
