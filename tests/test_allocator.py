import ctypes
import platform
import subprocess
import sys

import pytest

from nasseg import allocator

PROGRAM = """
import resource, sys
import torch
from nasseg.allocator import keep_freed_memory

def faults(runs):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(runs):
        torch.ones(4, 1024, 1024)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / runs

before = faults(20)
assert keep_freed_memory()
faults(10)
print(before, faults(20))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_memory_that_was_freed_is_used_again() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    before, after = map(float, done.stdout.split())
    assert before >= 8  # 16 MiB in huge pages of 2 MiB; in small pages many more
    assert after < 1


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(name: None) -> None:
        raise OSError

    monkeypatch.setattr(ctypes, "CDLL", no_library)
    assert allocator.keep_freed_memory.__wrapped__() is False
