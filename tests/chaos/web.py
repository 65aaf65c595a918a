"""A small HTTP client over kept-open connections. Whatever goes wrong on the way is `NoAnswer`: the request may have been carried out."""

import asyncio
import collections
import json


class NoAnswer(Exception):
    """No whole answer came."""


class Web:
    """One client for all hosts; addresses are `HOST:PORT`."""

    def __init__(self):
        self.idle = collections.defaultdict(list)

    async def send(self, method, address, path, body=None, headers=None, timeout=8.0):
        """Returns the status and the body's bytes."""
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", f"host: {address}", f"content-length: {len(data)}"]
        if data:
            lines.append("content-type: application/json")
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode()
        # Also where a kept connection was closed by the other side meanwhile: nobody knows what became of the request.
        try:
            async with asyncio.timeout(timeout):
                reader, writer = await self.connect(address)
                try:
                    writer.write(head + data)
                    status, answer, keep = await read_answer(reader)
                except BaseException:
                    writer.transport.abort()
                    raise
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError, TimeoutError) as error:
            raise NoAnswer(f"{method} {address}{path}: {error!r}") from error
        if keep:
            self.idle[address].append((reader, writer))
        else:
            writer.close()
        return status, answer

    async def connect(self, address):
        while self.idle[address]:
            reader, writer = self.idle[address].pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
        host, port = address.rsplit(":", 1)
        return await asyncio.open_connection(host, int(port), limit=1 << 20)

    async def json(self, method, address, path, body=None, headers=None, timeout=30.0):
        """The answer's JSON; anything but a 2xx is `NoAnswer`, too."""
        status, answer = await self.send(method, address, path, body, headers, timeout)
        if not 200 <= status < 300:
            raise NoAnswer(f"{method} {address}{path}: {status} {answer[:300].decode(errors='replace')}")
        return json.loads(answer) if answer else None


async def read_answer(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    status = int(head[0].split(" ")[1])
    if headers.get("transfer-encoding", "").lower() == "chunked":
        chunks = []
        while size := int(await reader.readline(), 16):
            chunks.append(await reader.readexactly(size))
            await reader.readexactly(2)
        await reader.readline()
        body = b"".join(chunks)
    else:
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    return status, body, headers.get("connection", "").lower() != "close"
