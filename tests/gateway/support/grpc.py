"""Both ends of gRPC, from the implementation that most portals and clients use.

    grpc.py serve [CERTIFICATE KEY]              a portal; prints its port, then what happens to it
    grpc.py call ADDRESS AUTHORITY NAME COOKIE CASE    a client; prints what came back, or fails

Messages are bytes: nothing here needs a compiler of interfaces.
"""

import sys

# This file is called like the package that it needs.
sys.path = [path for path in sys.path if not path.endswith("support")]

import json
import threading
import time
from concurrent import futures

import grpc


def say(*words):
    print(*words, flush=True)


def unary(message, context):
    context.send_initial_metadata((("x-early", "1"),))
    context.set_trailing_metadata((("x-late", "2"), ("x-late-bin", b"\x00\xff")))
    return message


def fail(message, context):
    context.set_trailing_metadata((("x-why", "because"),))
    context.abort(grpc.StatusCode.NOT_FOUND, "no such SIM: 50 %")


def metadata(message, context):
    return json.dumps([[key, str(value)] for key, value in context.invocation_metadata()]).encode()


def remaining(message, context):
    return str(context.time_remaining()).encode()


def slow(message, context):
    ended = threading.Event()
    context.add_callback(ended.set)
    ended.wait()
    say("ended slow")
    return b""


def count(messages, context):
    return str(sum(len(message) for message in messages)).encode()


def many(message, context):
    for number in range(int(message)):
        yield str(number).encode()


def endless(message, context):
    context.add_callback(lambda: say("ended endless"))
    while context.is_active():
        yield b"tick"
        time.sleep(0.05)


def chat(messages, context):
    for message in messages:
        yield b"heard " + message


CASES = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Metadata": grpc.unary_unary_rpc_method_handler(metadata),
    "Remaining": grpc.unary_unary_rpc_method_handler(remaining),
    "Slow": grpc.unary_unary_rpc_method_handler(slow),
    "Count": grpc.stream_unary_rpc_method_handler(count),
    "Many": grpc.unary_stream_rpc_method_handler(many),
    "Endless": grpc.unary_stream_rpc_method_handler(endless),
    "Chat": grpc.stream_stream_rpc_method_handler(chat),
}


class Portal(grpc.GenericRpcHandler):
    def service(self, details):
        return CASES.get(details.method.rsplit("/", 1)[-1])


def serve(certificate=None, key=None):
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=32))
    server.add_generic_rpc_handlers((Portal(),))
    if certificate:
        with open(certificate, "rb") as chain, open(key, "rb") as secret:
            pair = (secret.read(), chain.read())
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials((pair,)))
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    say(port)
    # Until whoever started it lets go.
    sys.stdin.read()
    server.stop(None)


class Client:
    def __init__(self, address, authority, name, cookie):
        with open(authority, "rb") as file:
            credentials = grpc.ssl_channel_credentials(file.read())
        options = (("grpc.ssl_target_name_override", name), ("grpc.default_authority", name))
        self.channel = grpc.secure_channel(address, credentials, options)
        self.metadata = (("cookie", cookie), ("remote-user", "eve"), ("x-portcullis-jwt-assertion", "eve"), ("x-token-bin", b"\x01\x02"))

    def kind(self, kind, name):
        return getattr(self.channel, kind)("/portal.Sims/" + name)

    def nobody(self):
        seen = dict(json.loads(self.kind("unary_unary", "Metadata")(b"", metadata=self.metadata)))
        assert not {"remote-user", "x-portcullis-jwt-assertion"} & seen.keys() and "x-token-bin" in seen, seen
        say("done")

    def everything(self):
        answer, call = self.kind("unary_unary", "Unary").with_call(b"\x00hello\xff", metadata=self.metadata)
        assert answer == b"\x00hello\xff"
        assert ("x-early", "1") in tuple(call.initial_metadata()), call.initial_metadata()
        assert {("x-late", "2"), ("x-late-bin", b"\x00\xff")} <= set(call.trailing_metadata())
        assert call.code() is grpc.StatusCode.OK
        large = bytes(3 * 1024 * 1024)
        assert self.kind("unary_unary", "Unary")(large, metadata=self.metadata) == large

        seen = dict(json.loads(self.kind("unary_unary", "Metadata")(b"", metadata=self.metadata)))
        assert seen["remote-user"] == "ada@example.com", seen
        assert seen["x-portcullis-jwt-assertion"].count(".") == 2, seen
        assert "cookie" not in seen and "x-token-bin" in seen and "x-forwarded-for" in seen, seen

        try:
            self.kind("unary_unary", "Fail")(b"", metadata=self.metadata)
            raise AssertionError("it does not fail")
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.NOT_FOUND and error.details() == "no such SIM: 50 %", error
            assert ("x-why", "because") in tuple(error.trailing_metadata())

        left = float(self.kind("unary_unary", "Remaining")(b"", metadata=self.metadata, timeout=20))
        assert 10 < left < 21, left
        pieces = (bytes(1000) for _ in range(2000))
        assert self.kind("stream_unary", "Count")(pieces, metadata=self.metadata) == b"2000000"
        many = [int(number) for number in self.kind("unary_stream", "Many")(b"5000", metadata=self.metadata)]
        assert many == list(range(5000))
        self.converse()
        self.all_at_once()

    def converse(self):
        """Each side speaks only when it has heard the other."""
        turn, words = threading.Semaphore(1), [b"one", b"two", b"three"]

        def speak():
            for word in words:
                turn.acquire()
                yield word

        heard = []
        for answer in self.kind("stream_stream", "Chat")(speak(), metadata=self.metadata):
            heard.append(answer)
            turn.release()
        assert heard == [b"heard " + word for word in words], heard

    def all_at_once(self):
        calls = [self.kind("unary_unary", "Unary").future(b"%d" % n, metadata=self.metadata) for n in range(200)]
        assert [call.result() for call in calls] == [b"%d" % n for n in range(200)]

    def deadline(self):
        # Connected already, or the time could pass before anybody hears of the call.
        self.kind("unary_unary", "Unary")(b"", metadata=self.metadata)
        try:
            self.kind("unary_unary", "Slow")(b"", metadata=self.metadata, timeout=1)
        except grpc.RpcError as error:
            say(error.code().name)

    def cancel(self):
        stream = self.kind("unary_stream", "Endless")(b"", metadata=self.metadata)
        next(stream)
        stream.cancel()
        say("cancelled")
        sys.stdin.read()

    def endless(self):
        try:
            for number, _ in enumerate(self.kind("unary_stream", "Endless")(b"", metadata=self.metadata)):
                if number == 0:
                    say("open")
        except grpc.RpcError as error:
            say(error.code().name, error.details())

    def once(self):
        try:
            self.kind("unary_unary", "Unary")(b"", metadata=self.metadata)
            say("OK")
        except grpc.RpcError as error:
            say(error.code().name, error.details())


if __name__ == "__main__":
    verb, *words = sys.argv[1:]
    if verb == "serve":
        serve(*words)
    else:
        *place, case = words
        getattr(Client(*place), case)()
        say("done")
