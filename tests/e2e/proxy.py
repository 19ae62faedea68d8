"""Between a controller and the API server: counts writes, cuts connections, answers in its place.

Plain HTTP towards the controller, on loopback only; TLS and the controller's own bearer token
towards the API server."""

import contextlib
import http.client
import http.server
import json
import socket
import ssl
import threading
from urllib.parse import parse_qs, urlsplit

from kubernetes import client

HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive"}


class Request:
    def __init__(self, handler):
        self.method, self.path = handler.command, urlsplit(handler.path).path
        self.query = {k: v[0] for k, v in parse_qs(urlsplit(handler.path).query).items()}
        parts = self.path.strip("/").split("/")
        parts = parts[2:] if parts[0] == "api" else parts[3:]
        if parts[:1] == ["namespaces"] and len(parts) > 2:
            parts = parts[2:]
        self.resource = "/".join(parts[::2])
        self.is_watch = self.query.get("watch") in ("1", "true")
        self.is_write = self.method != "GET"

    def __str__(self):
        return f"{self.method} {self.resource}"


class Proxy:
    """before(request): None to go on, or (status, document) to answer in the API server's place.
    after(request, status): once the API server has answered, before the controller hears of it."""

    def __init__(self, before=None, after=None):
        configuration = client.Configuration.get_default_copy()
        self.before = before or (lambda request: None)
        self.after = after or (lambda request, status: None)
        self.upstream = urlsplit(configuration.host)
        self.tls = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        self.lock = threading.Lock()
        self.sockets = set()
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def cut(self):
        """Every connection there is, without a goodbye."""
        with self.lock:
            sockets, self.sockets = self.sockets, set()
        for s in sockets:
            with contextlib.suppress(OSError):
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                s.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.server.shutdown()
        self.cut()
        self.server.server_close()

    def handler(proxy):  # noqa: N805
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            upstream = None

            def setup(self):
                super().setup()
                with proxy.lock:
                    proxy.sockets.add(self.connection)

            def finish(self):
                with proxy.lock:
                    proxy.sockets.discard(self.connection)
                if self.upstream:
                    self.upstream.close()
                with contextlib.suppress(OSError):
                    super().finish()

            def forward(self):
                try:
                    self.pass_on()
                except OSError:
                    self.close_connection = True

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = forward

            def pass_on(self):
                request = Request(self)
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                instead = proxy.before(request)
                if instead:
                    self.answer(instead[0], json.dumps(instead[1]).encode() + b"\n")
                    return
                answer = self.ask(body)
                if request.is_watch:
                    proxy.after(request, answer.status)
                    self.stream(answer)
                else:
                    content = answer.read()
                    proxy.after(request, answer.status)
                    self.answer(answer.status, content, answer.headers)

            def ask(self, body):
                if not self.upstream:
                    self.upstream = http.client.HTTPSConnection(
                        proxy.upstream.hostname, proxy.upstream.port, context=proxy.tls
                    )
                headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP_BY_HOP}
                self.upstream.request(self.command, self.path, body, headers)
                return self.upstream.getresponse()

            def answer(self, status, content, headers=None):
                self.send_response(status)
                for name, value in (headers or {"Content-Type": "application/json"}).items():
                    if name.lower() not in HOP_BY_HOP | {"content-length", "date"}:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def stream(self, answer):
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.headers["Content-Type"])
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                while chunk := answer.read1(65536):
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                self.wfile.write(b"0\r\n\r\n")

            def log_message(self, *_):
                pass

        return Handler
