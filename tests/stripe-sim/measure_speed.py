#!/usr/bin/env python3
"""Measures how many reversals the simulator answers per second of one core: `measure_speed.py BINARY [POSTS]`.

Starts the binary (build it with --release) with a transfer for each POST, sends the POSTs over eight connections, and divides
by the processor time that the simulator used, so a slow client or a busy machine hardly changes the result.
"""

import os
import socket
import subprocess
import sys
import threading
import time

CONNECTIONS = 8


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def post(address, numbers, failures):
    stream = socket.create_connection(address)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for n in numbers:
        body = f"amount=4200&metadata[reversal_id]=0192f0c1-7d1e-7c7a-9c7e-{n:012}&metadata[refund_id]=re_{n}"
        head = (
            f"POST /v1/transfers/tr_bench_{n}/reversals HTTP/1.1\r\nhost: sim\r\nauthorization: Bearer sk_test_speed\r\n"
            f"stripe-version: 2026-08-26.dahlia\r\nidempotency-key: clawback-{n}-0\r\n"
            f"content-type: application/x-www-form-urlencoded\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        stream.sendall((head + body).encode())
        answer = b""
        # Every answer to a reversal ends so, and none is longer than this.
        while not answer.endswith(b"}\n"):
            answer += stream.recv(65536)
        if not answer.startswith(b"HTTP/1.1 200"):
            failures.append(answer)


def main():
    binary, posts = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 40_000
    command = [binary, "--listen", "127.0.0.1:0", "--transfers", str(posts), "--amount", "9000", "--no-log"]
    started = time.monotonic()
    simulator = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        host, port = simulator.stdout.readline().split()[-1].removeprefix("http://").split(":")
        print(f"started with {posts} transfers in {time.monotonic() - started:.2f} s")
        failures = []
        shares = [range(1 + at, posts + 1, CONNECTIONS) for at in range(CONNECTIONS)]
        threads = [threading.Thread(target=post, args=((host, int(port)), share, failures)) for share in shares]
        began, used = time.monotonic(), cpu_seconds(simulator.pid)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took, used = time.monotonic() - began, cpu_seconds(simulator.pid) - used
        assert not failures, failures[0]
        print(f"{posts} POSTs in {took:.1f} s; {used:.2f} s of processor time, {used / posts * 1e6:.0f} µs each")
        print(f"{posts / used:.0f} POSTs per second of one core")
    finally:
        simulator.kill()
        simulator.wait()


main()
