"""What every measurement needs: certificates, an origin to proxy, and the gateway with a user who has logged in."""

import json
import os
import random
import secrets
import socket
import subprocess
from pathlib import Path

import login
from servers import LOAD, Failure, Server, run, tool, wait_until

HERE = Path(__file__).resolve().parent
BODY = 1024  # bytes of the JSON answer
BIG = 16 << 20  # bytes of a download
EMAIL = "bench@example.com"
ASSERTION = "X-Portcullis-Jwt-Assertion"


class Rooms:
    """A folder with a room for each server, and free ports."""

    def __init__(self, folder, count):
        self.folder, self.free_ports = Path(folder), ports(count)

    def room(self, name):
        folder = self.folder / name
        folder.mkdir()
        return folder

    def port(self):
        return self.free_ports.pop()


class Lab(Rooms):
    """Everything lives in `folder`: certificates, configurations, databases, logs."""

    def __init__(self, folder, long_body):
        super().__init__(folder, 20)
        certificates = self.folder / "certs"
        run(HERE.parent / "certs/make-dev-certs.sh", "--out", certificates)
        self.authority = certificates / "authority.pem"
        self.certificate = certificates / "fullchain.pem"
        self.key = certificates / "privkey.pem"
        self.origin_port, self.auth_port, self.websocket_port = (self.port() for _ in range(3))
        self.long_body = long_body

    def origin(self):
        """On the other core, as everything that is not measured."""
        room = self.room("origin")
        text = json.dumps({"sim": "8999901000400000001", "padding": ""})
        body = text[:-2] + "x" * (BODY - len(text)) + text[-2:]
        (room / "big").write_bytes(random.randbytes(BIG))
        with open(room / "long", "wb") as file:
            file.truncate(self.long_body)
        configuration = f"""
            server {{
                listen 127.0.0.1:{self.origin_port};
                default_type application/json;
                location / {{ return 200 '{body}'; }}
                location = /identity {{ return 200 '$http_remote_email $http_{ASSERTION.lower().replace("-", "_")}'; }}
                location = /big {{ root {room}; sendfile on; }}
                location = /long {{ root {room}; sendfile on; }}
                location = /websocket {{
                    proxy_pass http://127.0.0.1:{self.websocket_port};
                    proxy_http_version 1.1;
                    proxy_set_header Upgrade $http_upgrade;
                    proxy_set_header Connection upgrade;
                    proxy_read_timeout 600s;
                }}
            }}"""
        return nginx_server("origin", room, configuration, f"http://localhost:{self.origin_port}", core=LOAD)

    def auth_service(self):
        """Lets everybody in who has any cookie of the right name, and says who it is."""
        configuration = f"""
            server {{
                listen 127.0.0.1:{self.auth_port};
                add_header Remote-User {EMAIL};
                add_header Remote-Email {EMAIL};
                add_header Remote-Name '';
                add_header Remote-Groups '';
                location / {{ if ($cookie_session = '') {{ return 401; }} return 204; }}
            }}"""
        url = f"http://localhost:{self.auth_port}"
        return nginx_server("auth", self.room("auth"), configuration, url, core=LOAD)

    def gateway(self, binary, name="Portcullis", database=None, sessions="database"):
        """With a user who has logged in: password, enrolment of a device, one code."""
        room, port, admin = self.room(name.lower()), self.port(), self.port()
        url = f"https://localhost:{port}"
        # All of the load is one user's. Older binaries have no such limits.
        limited = b"max_streams_per_user" in Path(binary).read_bytes()
        per_user = "max_streams_per_user = 10000\nmax_connections_per_user = 10000" if limited else ""
        configuration = room / "portcullis.toml"
        configuration.write_text(f"""
            [server]
            listen = ["127.0.0.1:{port}"]
            public_url = "{url}"
            admin_listen = "127.0.0.1:{admin}"
            workers = 1
            max_connections_per_network = 10000

            [tls]
            certificate = "{self.certificate}"
            key = "{self.key}"

            [portal]
            name = "Bench"
            upstreams = ["http://127.0.0.1:{self.origin_port}"]
            {per_user}

            [storage]
            database = "{database or f"sqlite:{room}/portcullis.db"}"
            key_file = "{room}/portcullis.key"

            [sessions]
            store = "{sessions}"

            [log]
            access = false
            """)
        password = secrets.token_urlsafe(24)
        # Older binaries make the store unasked.
        init = ["--init"] if "--init" in run(binary, "user", "add", "--help") else []
        run(binary, "user", "add", EMAIL, *init, "--password-stdin", "--config", configuration, text=password)
        version = run(binary, "--version").split()[-1]
        server = Server(name, [binary, "serve", "--config", configuration], url, room, version=version)
        with server:
            wait_until(lambda: server.must_run() or listens(port), "the gateway does not start")
            browser = login.log_in(url, EMAIL, password, self.authority)
            server.cookie = browser.session
            _, _, told = browser.ask("GET", "/identity")
        email, _, assertion = told.partition(" ")
        if email != EMAIL:
            raise Failure(f"the gateway told the portal {email!r}, not {EMAIL!r}")
        server.version += " (identity headers, signed assertion)" if assertion else " (identity headers, NO assertion)"
        return server


def binary():
    """The binary that PORTCULLIS names, or a new one."""
    return named_or_built(["cargo", "build", "--profile", "dist", "--locked"], "target/dist/portcullis")


def tuned():
    """The same, built for speed."""
    return named_or_built(["packaging/build"], "target/tuned/portcullis")


def named_or_built(command, built):
    if path := os.environ.get("PORTCULLIS"):
        return Path(path).resolve(strict=True)
    subprocess.run(command, cwd=HERE.parent, check=True)
    return HERE.parent / built


def listens(port):
    socket.create_connection(("127.0.0.1", port)).close()
    return True


def ports(count):
    """Free ones: with the 10 000 that a cluster of Redis adds for its bus, below those of outgoing connections."""
    found = []
    for port in random.sample(range(12000, 22000), 1000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise Failure("no free ports")


def nginx_server(name, room, configuration, url, **options):
    binary = tool("nginx")
    user = "user root;" if os.geteuid() == 0 else ""
    (room / "nginx.conf").write_text(f"""
        daemon off;
        worker_processes 1;
        {user}
        pid {room}/pid;
        error_log stderr warn;
        events {{ worker_connections 8192; }}
        http {{
            access_log off;
            keepalive_timeout 600s;
            keepalive_requests 1000000000;
            client_body_temp_path {room}/body;
            proxy_temp_path {room}/proxy;
            fastcgi_temp_path {room}/fastcgi;
            uwsgi_temp_path {room}/uwsgi;
            scgi_temp_path {room}/scgi;
            {configuration}
        }}""")
    version = run(binary, "-v").rpartition("/")[2].strip()
    command = [binary, "-p", room, "-c", room / "nginx.conf", "-e", "stderr"]
    return Server(name, command, url, room, version=version, **options)
