"""Runs commands and does something at the n-th system call of each that changes anything. x86-64 only.

Reads jobs from stdin, one JSON object a line: `command`, `stdin`, `stdout`, `stderr` (files), `at` (n), `do`,
`counted`, `follow`. `do` is `kill`, an errno's name, or an errno's name with `+`: from the n-th on. `counted` are
names of system calls; `creat` stands for openat with O_CREAT or O_TMPFILE, `open` for every openat. The threads of
a command are counted together, in the order in which things happen: strace counts each thread for itself, and so
hides calls of one thread behind those of another. With `follow` the processes that it starts are counted as well;
without, they are not even traced, and live on undisturbed.

Answers each with a JSON object: `count`, `hits`, `what` (the last call that was hit), `code`, `signal`.
"""

import ctypes
import errno
import json
import os
import signal
import struct
import sys

NUMBERS = {
    "write": 1, "pwrite64": 18, "writev": 20, "pwritev": 296, "copy_file_range": 326, "sendfile": 40,
    "fsync": 74, "fdatasync": 75, "syncfs": 306, "sync": 162,
    "rename": 82, "renameat": 264, "renameat2": 316, "link": 86, "linkat": 265, "symlink": 88, "symlinkat": 266,
    "unlink": 87, "unlinkat": 263, "rmdir": 84, "mkdir": 83, "mkdirat": 258,
    "chmod": 90, "fchmod": 91, "fchmodat": 268, "fchmodat2": 452, "chown": 92, "fchown": 93, "lchown": 94,
    "fchownat": 260, "utimensat": 280, "ftruncate": 77, "fallocate": 285, "flock": 73,
    "kill": 62, "tgkill": 234, "clone": 56, "clone3": 435, "fork": 57, "vfork": 58, "execve": 59,
    "setsid": 112, "openat": 257, "pipe2": 293, "socket": 41, "getrandom": 318,
}
NAMES = {number: name for name, number in NUMBERS.items()}
# Calls whose first argument is a file that is open: pipes, sockets and the terminal are nobody's state.
BY_FD = {"write", "pwrite64", "writev", "pwritev", "fsync", "fdatasync", "fchmod", "fchown", "ftruncate", "fallocate"}
# Where the path is, among the arguments.
PATH_AT = {"rename": 1, "renameat": 3, "renameat2": 3, "link": 1, "linkat": 3, "symlink": 1, "symlinkat": 2,
           "unlink": 0, "unlinkat": 1, "rmdir": 0, "mkdir": 0, "mkdirat": 1, "chmod": 0, "fchmodat": 1,
           "chown": 0, "lchown": 0, "fchownat": 1, "openat": 1, "execve": 0}

SYSCALL, POKEUSER, SEIZE, INTERRUPT, LISTEN, INFO = 24, 6, 0x4206, 0x4207, 0x4208, 0x420E
SYSGOOD, FORK, VFORK, CLONE, EXEC = 1, 2, 4, 8, 0x10
EVENT_EXEC, EVENT_STOP = 4, 128
WALL = 0x40000000
CREATES = 0o100 | 0o20000000

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def ptrace(request, pid, address=0, data=0):
    """True unless the process is gone."""
    return libc.ptrace(request, pid, address, data) != -1 or ctypes.get_errno() != errno.ESRCH


def path_of(pid, name, args):
    try:
        if name in BY_FD or name == "flock":
            return os.readlink(f"/proc/{pid}/fd/{args[0]}")
        if name in PATH_AT:
            with open(f"/proc/{pid}/mem", "rb", 0) as memory:
                memory.seek(args[PATH_AT[name]])
                # Not beyond the page, which may be the last.
                room = 4096 - args[PATH_AT[name]] % 4096
                return memory.read(room).split(b"\0")[0].decode(errors="replace")
    except OSError:
        pass
    return ""


class Tracer:
    def __init__(self, at, do, counted, program):
        # What a service does is its own affair.
        self.program = program
        self.at, self.kill, self.on = at, do == "kill", do.endswith("+")
        self.errno = None if self.kill else getattr(errno, do.rstrip("+"))
        self.creat, self.open = "creat" in counted, "open" in counted
        self.numbers = {NUMBERS[name] for name in counted if name in NUMBERS}
        if self.creat or self.open:
            self.numbers.add(NUMBERS["openat"])
        self.count, self.hits, self.what, self.armed = 0, 0, None, False
        self.failing = {}
        self.info = ctypes.create_string_buffer(128)

    def entered(self, pid, number, args):
        """A call that may count begins; whether the process is dead now."""
        name = NAMES[number]
        if name == "openat" and not self.open and not args[2] & CREATES:
            return False
        path = path_of(pid, name, args)
        if name in BY_FD and (not path.startswith("/") or path.startswith(("/dev/", "/proc/"))):
            return False
        if name == "openat" and path.startswith(("/proc/", "/sys/", "/dev/", "/lib", "/usr/", "/etc/")):
            return False
        # What it says must be heard.
        if not self.kill and path.endswith(("/traced.out", "/traced.err")):
            return False
        if self.program and os.readlink(f"/proc/{pid}/exe") != self.program:
            return False
        self.count += 1
        if self.count < self.at or (self.count > self.at and not self.on):
            return False
        self.hits += 1
        self.what = f"{name} {path}".strip()
        if self.kill:
            os.kill(pid, signal.SIGKILL)
            return True
        ptrace(POKEUSER, pid, 15 * 8, (1 << 64) - 1)
        self.failing[pid] = True
        return False

    def stopped(self, pid):
        """A call begins or ends; whether the process is dead now."""
        libc.ptrace(INFO, pid, len(self.info), ctypes.addressof(self.info))
        op = self.info.raw[0]
        if op == 1 and self.armed:
            number, *args = struct.unpack_from("<7Q", self.info.raw, 24)
            if number in self.numbers:
                return self.entered(pid, number, args)
        elif op == 2 and self.failing.pop(pid, False):
            ptrace(POKEUSER, pid, 10 * 8, (1 << 64) - self.errno)
        return False

    def run(self, command, files, follow):
        ready, go = os.pipe()
        root = os.fork()
        if root == 0:
            os.close(go)
            for number, file in enumerate(files):
                os.dup2(file, number)
            os.read(ready, 1)
            os.execv(command[0], command)
        options = SYSGOOD | CLONE | EXEC | (FORK | VFORK if follow else 0)
        if libc.ptrace(SEIZE, root, 0, options) == -1:
            sys.exit(f"cannot trace: {os.strerror(ctypes.get_errno())}")
        ptrace(INTERRUPT, root)
        os.close(ready)
        os.write(go, b".")
        os.close(go)
        while True:
            pid, status = os.waitpid(-1, WALL)
            if os.WIFEXITED(status) or os.WIFSIGNALED(status):
                if pid == root:
                    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
                    return code, os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
                continue
            stop, event = os.WSTOPSIG(status), status >> 16
            if stop == signal.SIGTRAP | 0x80:
                if not self.stopped(pid):
                    ptrace(SYSCALL, pid)
            elif event:
                # Counting begins with the command itself.
                self.armed |= event == EVENT_EXEC
                group = event == EVENT_STOP and stop != signal.SIGTRAP
                ptrace(LISTEN if group else SYSCALL, pid)
            else:
                ptrace(SYSCALL, pid, 0, stop)


def work(job):
    program = os.path.realpath(job["command"][0]) if job["follow"] else None
    tracer = Tracer(job["at"], job["do"], job["counted"], program)
    write = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    files = [os.open(job["stdin"], os.O_RDONLY), os.open(job["stdout"], write), os.open(job["stderr"], write)]
    code, ended_by = tracer.run(job["command"], files, job["follow"])
    print(json.dumps({"count": tracer.count, "hits": tracer.hits, "what": tracer.what, "code": code,
                      "signal": ended_by}), flush=True)


for line in sys.stdin:
    # What is traced is let go when its tracer ends: each job has one of its own.
    worker = os.fork()
    if worker == 0:
        work(json.loads(line))
        os._exit(0)
    os.waitpid(worker, 0)
