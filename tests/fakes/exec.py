"""`exec` of a fake Kubernetes API: a program really runs, in the folder that stands for the volume.

Bytes arrive on channel 1 of a WebSocket, errors on 2, the end on 3.
"""

import base64
import contextlib
import hashlib
import json
import subprocess
import sys

STDOUT, STDERR, STATUS = 1, 2, 3
BLOCK = 32 * 1024  # what a kubelet sends in one frame


class Exec:
    """The part of the request handler that runs programs."""

    def exec(self, path, query):
        """Runs the program in the volume's folder and sends what it writes, as a kubelet does."""
        name = path.split("/")[-2]
        if path.removesuffix("/exec") not in self.api.objects:
            return self.answer(404, {"message": f'pods "{name}" not found'})
        argv = [value for key, value in query if key == "command"]
        here = str(self.api.volume)
        argv = [
            sys.executable if word == "python3" else word.replace("/data", here, 1) if word.startswith("/data") else word
            for word in argv
        ]
        accept = base64.b64encode(
            hashlib.sha1(f"{self.headers['Sec-WebSocket-Key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
        )
        self.wfile.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Protocol: v5.channel.k8s.io\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        self.close_connection = True
        left = self.api.cuts.pop(0) if is_transfer(argv) and self.api.cuts else None
        record = [argv[3:], 0]
        self.api.sent.append(record)
        with contextlib.suppress(OSError):  # the client has gone
            self.stream(argv, here.encode(), left, record)
        return None

    def stream(self, argv, here, left, record):
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.api.environ) as process:
            try:
                while block := process.stdout.read(BLOCK):
                    if left is not None and record[1] + len(block) > left:
                        return
                    self.frame(STDOUT, block if is_transfer(argv) else block.replace(here, b"/data"))
                    record[1] += len(block)
                    if self.api.pace is not None and is_transfer(argv):
                        self.api.pace.wait(30)
                said = process.stderr.read()
            finally:
                process.kill()
        if said:
            self.frame(STDERR, said)
        status = {"status": "Success"}
        if process.returncode:
            cause = {"reason": "ExitCode", "message": str(process.returncode)}
            status = {"status": "Failure", "message": "command terminated", "details": {"causes": [cause]}}
        self.frame(STATUS, json.dumps(status).encode())
        self.wfile.write(b"\x88\x02\x03\xe8")  # close, 1000

    def frame(self, channel, content):
        size = len(content) + 1
        length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2) if size < 65536 else b"\x7f" + size.to_bytes(8)
        self.wfile.write(b"\x82" + length + bytes([channel]) + content)


def is_transfer(argv):
    """Whether a program sends a file: it is given a path and an offset."""
    return len(argv) == 5 and argv[4].isdigit()
