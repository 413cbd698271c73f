"""What networks leave behind in a process: threads and processes that are no daemons."""

import os
import sys
import threading
from contextlib import suppress
from multiprocessing import active_children
from typing import NoReturn


def leave(code: int) -> NoReturn:
    """End this process with an exit code, and the processes that `multiprocessing` has started in it.

    Python waits for threads and processes that are no daemons. A network may have started one that never ends.
    """
    children = active_children()
    threads = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    if not children and all(thread.daemon for thread in threads):
        sys.exit(code)
    for child in children:
        child.kill()
    # A network may have closed or replaced them.
    with suppress(AttributeError, ValueError, OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
