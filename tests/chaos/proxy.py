#!/usr/bin/env python3
"""TCP links that can be cut: proxy.py NAME=HOST:PORT[,HOST:PORT…]…

Listens for each link on a port of its own and prints "NAME PORT". Of several targets a connection gets any that accepts it, as behind a
balancer. Commands on stdin, one a line:

  stall NAME   no byte gets through any more, and no connection is refused or closed: a cable is unplugged
  cut NAME     every connection is reset, and every new one
  heal NAME    all is well; what was stalled goes on
"""

import asyncio
import random
import sys


class Link:
    def __init__(self, name, targets):
        self.name, self.targets = name, targets
        self.flows = asyncio.Event()
        self.flows.set()
        self.refuses = False
        self.writers = set()

    async def serve(self, reader, writer):
        if self.refuses:
            return writer.transport.abort()
        self.writers.add(writer)
        other = None
        try:
            await self.flows.wait()
            other_reader, other = await self.connect()
            self.writers.add(other)
            await asyncio.gather(self.pump(reader, other), self.pump(other_reader, writer))
        except OSError:
            pass
        finally:
            for end in (writer, other):
                if end is not None:
                    self.writers.discard(end)
                    end.transport.abort()

    async def connect(self):
        for host, port in random.sample(self.targets, len(self.targets)):
            try:
                async with asyncio.timeout(2):
                    return await asyncio.open_connection(host, port)
            except (OSError, TimeoutError) as error:
                last = error
        raise OSError("no target accepts") from last

    async def pump(self, reader, writer):
        while data := await reader.read(1 << 16):
            await self.flows.wait()
            writer.write(data)
            await writer.drain()
        # One side is done: so is the connection, for the protocols spoken here.
        raise OSError("closed")

    def obey(self, command):
        if command == "stall":
            self.flows.clear()
        else:
            self.refuses = command == "cut"
            self.flows.set()
        if command == "cut":
            for writer in list(self.writers):
                writer.transport.abort()


async def main():
    links = {}
    for argument in sys.argv[1:]:
        name, _, targets = argument.partition("=")
        parts = (target.rsplit(":", 1) for target in targets.split(","))
        link = links[name] = Link(name, [(host, int(port)) for host, port in parts])
        server = await asyncio.start_server(link.serve, "127.0.0.1", 0)
        print(name, server.sockets[0].getsockname()[1], flush=True)
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        command, name = line.decode().split()
        links[name].obey(command)


if __name__ == "__main__":
    asyncio.run(main())
