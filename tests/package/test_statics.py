"""The library's statics beside fork().

If one thread forks while another initializes a function's static, the child waits for ever for a
thread that it does not have. The compiler guards such statics by a variable: the built library has
those named here, no other.
"""

import os
import re
import subprocess

SAFE = {
    "penstock::codec::array_pool()::pool",  # while the library is loaded
    "penstock::os::stack_left()::bounds",  # one a thread
}


def test_no_fork_can_meet_the_initialization_of_a_static():
    library = os.path.join(os.environ["PENSTOCK_RELEASE_TREE"], "libpenstock.a")
    symbols = subprocess.run(
        ["nm", "-C", library], capture_output=True, text=True, check=True
    ).stdout
    assert "penstock::Queue::create" in symbols
    assert set(re.findall(r"guard variable for (.*)", symbols)) <= SAFE
