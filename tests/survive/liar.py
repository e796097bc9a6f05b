"""What an sshd of the tests runs instead of what it is asked for: the same, but with lies in its answers.

The file that the first argument names says which.
"""

import os
import re
import subprocess
import sys

mode = open(sys.argv[1]).read().strip()
command = os.environ.get("SSH_ORIGINAL_COMMAND", "")
out = sys.stdout.buffer


def endless(piece):
    try:
        while True:
            out.write(piece)
            out.flush()
    except BrokenPipeError:
        pass
    os._exit(0)


if mode == "greeting":
    endless(b"y" * 65536)
if mode == "greeting-lines":
    endless(b"y\n" * 32768)
process = subprocess.Popen(["/bin/sh", "-c", command], stdin=0, stdout=subprocess.PIPE)
answers = 0
for line in process.stdout:
    answers += line.startswith(b"{")
    # The first answer belongs to the connection: with it all is well.
    if line.startswith(b"{") and answers > 1:
        if mode == "long":
            out.write(b'{"done":"')
            endless(b"x" * 65536)
        elif mode == "lines":
            out.write(line)
            endless(b'{"done":{}}\n' * 1000)
        elif mode == "complaints":
            while True:
                os.write(2, b"z" * 65536)
        elif mode == "garbage":
            line = b"\x00\xff no JSON \x1b[2J\n"
        elif mode == "type":
            line = b'{"done":{"roles":7,"release":[]}}\n'
        elif mode == "deep":
            line = b'{"done":' + b"[" * 200000 + b"\n"
        elif mode == "digests":
            line = re.sub(rb"[0-9a-f]{64}", b"0" * 64, line)
        elif mode == "release":
            line = re.sub(rb'"release":"[^"]*"', b'"release":"9-9"', line)
        elif mode == "silent":
            continue
        elif mode == "end":
            process.kill()
            os._exit(0)
    out.write(line)
    out.flush()
