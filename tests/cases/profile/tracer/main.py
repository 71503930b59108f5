import ctypes
import os
import signal

PTRACE_ATTACH = 16
child = os.fork()
if child == 0:
    signal.pause()
print(ctypes.CDLL(None).ptrace(PTRACE_ATTACH, child, 0, 0))
os.waitpid(child, 0)
os.kill(child, signal.SIGKILL)
