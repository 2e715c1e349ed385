"""A portal on Python's own http.server that reads no body, as its documentation's examples do not.

Says its port, then a line for each request that it believes to have got: method, target and user.
"""
import http.server, sys, time


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        print(self.command, self.path, self.headers.get("Remote-User"), flush=True)
        if self.path == "/slow":
            time.sleep(0.2)
        text = f"{self.command} {self.path} {self.headers.get('Remote-User')}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    do_GET = do_HEAD = do_DELETE = do_OPTIONS = do_PROPFIND = do_QUERY = do_LOCK = answer

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
