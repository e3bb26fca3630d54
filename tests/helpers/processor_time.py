"""What child processes take, which other work on the machine does not change as it changes the time on the clock."""

import resource


def children_cpu_s() -> float:
    """Processor time of this process' children that have ended, and of theirs, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
