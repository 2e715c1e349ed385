"""A mail server: says where it listens, then one line of JSON for each mail that it takes.

    smtp.py plain|starttls|tls CERTIFICATE KEY PORT

Its user is `gate` with the password `secret`. What a recipient's name begins with decides about its mail:
`refused` 550, `later` 451 at the first attempt, `hang` takes the first mail and never answers, `spam` 554 after the text.
"""

import asyncio
import email
import email.policy
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult

mode, certificate, key, port = sys.argv[1:5]
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
if mode != "plain":
    tls.load_cert_chain(certificate, key)
seen = set()


def part(message, kind):
    body = message.get_body(preferencelist=(kind,))
    return None if body is None else body.get_content().replace("\r\n", "\n")


class Handler:
    async def handle_MAIL(self, server, session, envelope, address, options):
        envelope.mail_from = address
        return "550 not for you" if address.startswith("stranger") else "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("refused"):
            return "550 5.1.1 no such user"
        if address.startswith("later") and address not in seen:
            seen.add(address)
            return "451 4.7.1 try again later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        to = envelope.rcpt_tos[0]
        if to.startswith("spam"):
            return "554 5.7.1 this looks like spam"
        message = email.message_from_bytes(envelope.original_content, policy=email.policy.default)
        report = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "user": session.auth_data.login.decode() if session.auth_data else None,
            "tls": session.ssl is not None or mode == "tls",
            "headers": [[name, str(value)] for name, value in message.items()],
            "type": message.get_content_type(),
            "text": part(message, "plain"),
            "html": part(message, "html"),
            "defects": [str(defect) for one in message.walk() for defect in one.defects],
            "longest_line": max(len(line) for line in envelope.original_content.split(b"\r\n")),
            "is_ascii": envelope.original_content.isascii(),
        }
        print(json.dumps(report), flush=True)
        if to.startswith("hang") and to not in seen:
            seen.add(to)
            await asyncio.sleep(3600)
        return "250 OK"


def sign_in(server, session, envelope, mechanism, data):
    return AuthResult(success=(data.login, data.password) == (b"gate", b"secret"), handled=False, auth_data=data)


def connection():
    common = {"authenticator": sign_in, "hostname": "mail.test", "enable_SMTPUTF8": True}
    if mode == "starttls":
        return SMTP(Handler(), tls_context=tls, require_starttls=True, auth_required=True, **common)
    return SMTP(Handler(), auth_require_tls=False, auth_required=mode == "tls", **common)


async def main():
    encrypted = tls if mode == "tls" else None
    loop = asyncio.get_running_loop()
    server = await loop.create_server(connection, "127.0.0.1", int(port), ssl=encrypted)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
