"""A load of all that a gateway does for users: requests, downloads, uploads, handshakes, WebSockets, strangers, our pages."""

from pathlib import Path

from client import Client
from load import h2load, http1


def mixed(lab, gateway, seconds=4):
    """Once each, some of it many times; half a minute with the usual `seconds`."""
    upload = Path(gateway.folder, "upload")
    upload.write_bytes(bytes(64 << 10))
    client = Client(gateway, lab.authority)
    client.check()
    http1(gateway, lab.authority, seconds, 32)
    h2load(gateway, "-t1", "-c8", "-m16", f"-D{seconds}")
    http1(gateway, lab.authority, seconds // 2, 4, "/big")
    h2load(gateway, "-t1", "-c4", "-m1", f"-D{seconds // 2}", path="/big")
    h2load(gateway, "--h1", "-t1", "-c4", "-n4000", "-d", upload)
    h2load(gateway, "-t1", "-c4", "-m4", "-n4000", "-d", upload)
    for _ in range(10):
        h2load(gateway, "--h1", "-t1", "-c100", "-n100")
    for _ in range(200):
        client.websocket().close()
        with client.connect() as stranger:
            client.ask(stranger, cookie=False)
            client.ask(stranger, "/.portcullis/login", cookie=False)
            client.ask(stranger, "/.portcullis/account")
