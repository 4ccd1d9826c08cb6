"""Several hosts that train one model: XGBoost's collective, held together by a tracker on the first host.

With one host nothing is started, and every question is answered for it alone.
"""

import contextlib
import os
import socket
import time

import numpy as np
from xgboost import collective
from xgboost.tracker import RabitTracker

# Every host of a job has it to itself, unless hosts share a network as in tests.
TRACKER_PORT = int(os.environ.get("XGBOOST_TRACKER_PORT", "9099"))
# How long hosts wait for each other: they fetch and read data of different sizes first.
PATIENCE_SECONDS = 600


@contextlib.contextmanager
def together(hosts, current):
    """Joins the hosts for as long as the context lasts; the first host is rank 0."""
    if len(hosts) == 1:
        yield
        return
    first = sorted(hosts, key=natural)[0]
    tracker = None
    if current == first:
        tracker = RabitTracker(len(hosts), address(current), TRACKER_PORT, sortby="task", timeout=PATIENCE_SECONDS)
        tracker.start()
    rank = sorted(hosts, key=natural).index(current)
    print(f"host {current}: {rank + 1} of {len(hosts)}", flush=True)
    with collective.CommunicatorContext(
        dmlc_communicator="rabit",
        dmlc_tracker_uri=address(first),
        dmlc_tracker_port=TRACKER_PORT,
        dmlc_task_id=f"{rank:06}",
        dmlc_retry=30,
        dmlc_timeout=PATIENCE_SECONDS,
    ):
        yield
    if tracker:
        tracker.wait_for(PATIENCE_SECONDS)


def natural(host):
    """Orders algo-2 before algo-10."""
    name, _, number = host.rpartition("-")
    return (name, int(number), host) if number.isdigit() else (host, 0, host)


def address(host):
    """The host's address; names of other hosts may come to be known later than this one starts."""
    ends = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return socket.gethostbyname(host)
        except socket.gaierror:
            if time.monotonic() > ends:
                raise
            time.sleep(0.2)


def is_first():
    return collective.get_rank() == 0


def largest(number):
    """The largest of the hosts' numbers."""
    if not collective.is_distributed():
        return number
    return int(collective.allreduce(np.array([number], np.int64), collective.Op.MAX)[0])


def total(number):
    """The sum of the hosts' numbers."""
    if not collective.is_distributed():
        return number
    return int(collective.allreduce(np.array([number], np.int64), collective.Op.SUM)[0])


def of_the_first(value):
    """What the first host has."""
    return collective.broadcast(value, 0) if collective.is_distributed() else value
