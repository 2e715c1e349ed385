#!/usr/bin/env python3
"""Logs a new user in, as a browser without JavaScript would, and prints the session cookie.

    login.py URL EMAIL AUTHORITY_PEM < password

The user must not have a device yet: the second factor is enrolled on the way. Standard library only.
"""

import base64
import hashlib
import hmac
import html.parser
import http.client
import http.cookies
import ssl
import struct
import sys
import time
import urllib.parse

COOKIE = "__Host-portcullis"


class Form(html.parser.HTMLParser):
    """What a login page holds: the hidden fields, and the key of an authenticator."""

    def __init__(self, page):
        super().__init__()
        self.hidden, self.key, self._in_key = {}, None, None
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "input" and attributes.get("type") == "hidden":
            self.hidden[attributes.get("name")] = attributes.get("value") or ""
        if attributes.get("id") == "key":
            # An input has its text as an attribute, anything else as content.
            self._in_key = tag
            self.key = attributes.get("value") or ""
        link = attributes.get("href") or ""
        if link.startswith("otpauth://") and not self.key:
            self.key = urllib.parse.parse_qs(urllib.parse.urlsplit(link).query)["secret"][0]

    def handle_data(self, text):
        if self._in_key:
            self.key += text

    def handle_endtag(self, tag):
        if tag == self._in_key:
            self._in_key = None


class Browser:
    """One origin, a cookie jar, and the headers of a navigation."""

    def __init__(self, url, authority):
        self.origin = url.rstrip("/")
        host = urllib.parse.urlsplit(url).netloc
        context = ssl.create_default_context(cafile=authority)
        self.connection = http.client.HTTPSConnection(host, context=context, timeout=30)
        self.cookies = {}

    def ask(self, method, path, fields=None):
        """Returns status, Location and page."""
        headers = {
            "Accept": "text/html",
            "Origin": self.origin,
            "Sec-Fetch-Site": "same-origin",
            "Sec-Fetch-Mode": "navigate",
            "Sec-Fetch-Dest": "document",
        }
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        body = None
        if fields is not None:
            body = urllib.parse.urlencode(fields)
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        self.connection.request(method, path, body, headers)
        answer = self.connection.getresponse()
        page = answer.read().decode()
        for line in answer.headers.get_all("Set-Cookie") or []:
            for name, morsel in http.cookies.SimpleCookie(line).items():
                if morsel["max-age"] == "0" or not morsel.value:
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = morsel.value
        return answer.status, answer.headers.get("Location"), page

    def form(self, path):
        status, _, page = self.ask("GET", path)
        if status != 200:
            raise SystemExit(f"login: GET {path} was answered {status}")
        return Form(page)

    def submit(self, path, form, expected, **fields):
        """Posts the form and insists on being sent to a path that begins with `expected`."""
        status, location, _ = self.ask("POST", path, {**form.hidden, **fields})
        to = urllib.parse.urlsplit(location or "").path
        if status != 303 or not to.startswith(expected):
            raise SystemExit(f"login: POST {path} was answered {status} to {to!r}, not 303 to {expected!r}")


def totp(key, now):
    """RFC 6238 with SHA-1, six digits and 30 seconds."""
    key = "".join(key.split()).upper()
    secret = base64.b32decode(key + "=" * (-len(key) % 8))
    digest = hmac.new(secret, struct.pack(">Q", int(now) // 30), hashlib.sha1).digest()
    offset = digest[-1] & 15
    number = struct.unpack(">I", digest[offset : offset + 4])[0] & 0x7FFFFFFF
    return f"{number % 1_000_000:06d}"


def main():
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    _, url, email, authority = sys.argv
    password = sys.stdin.read().rstrip("\n")
    browser = Browser(url, authority)
    form = browser.form("/.portcullis/login")
    browser.submit("/.portcullis/login", form, "/.portcullis/enrol", email=email, password=password)
    form = browser.form("/.portcullis/enrol")
    if not form.key:
        raise SystemExit("login: the enrolment page shows no key")
    code = totp(form.key, time.time())
    browser.submit("/.portcullis/enrol", form, "/.portcullis/recovery-codes", code=code, device_name="bench")
    form = browser.form("/.portcullis/recovery-codes")
    browser.submit("/.portcullis/recovery-codes", form, "/")
    if COOKIE not in browser.cookies:
        raise SystemExit("login: no session cookie came")
    print(f"{COOKIE}={browser.cookies[COOKIE]}")


if __name__ == "__main__":
    main()
