"""Servers that stand where a model hub should be."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# What hubs that do not work answer, by what is wrong, and words of what is said about it.
ANSWERS: dict[str, tuple[bytes | None, str]] = {
    "silent": (None, "timed out"),
    "closes": (b"", "disconnected|closed"),
    "headers-alone": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", "timed out"),
    "login-page": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n<p>login<", "a login page of this network"),
}


@contextmanager
def hub_server(answer: bytes | None) -> Iterator[str]:
    """The address of a server that gives this answer to every request; None: never any."""
    open_ones: list[socket.socket] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                open_ones.append(client)
                client.recv(1 << 16)
                if answer:
                    client.sendall(answer)
                elif answer is not None:
                    client.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        for client in open_ones:
            client.close()
