"""Logs a new user in, as a browser without JavaScript would: password, enrolment, one TOTP code, recovery codes.

The user must not have a device yet.
"""

import base64
import hashlib
import hmac
import html.parser
import http.client
import http.cookies
import ssl
import struct
import time
import urllib.parse

from servers import Failure


def cookie_name(url):
    """What the session's cookie is called at this address."""
    return f"__Host-portcullis-{urllib.parse.urlsplit(url).port}"


class Page(html.parser.HTMLParser):
    """What the script needs of a login page: the form that posts to `path`, and the key of an authenticator."""

    def __init__(self, text, path):
        super().__init__()
        self.path, self.action, self.hidden, self.key = path, None, {}, ""
        self._in_form, self._in_key = False, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        action = attributes.get("action") or ""
        # The first one counts: "Not now" is a second form of the same page.
        if tag == "form" and self.action is None and urllib.parse.urlsplit(action).path == self.path:
            self.action, self._in_form = action, True
        if tag == "input" and attributes.get("type") == "hidden" and self._in_form:
            self.hidden[attributes.get("name")] = attributes.get("value") or ""
        if attributes.get("id") == "key":
            self._in_key, self.key = tag, ""

    def handle_data(self, data):
        if self._in_key:
            self.key += data

    def handle_endtag(self, tag):
        if tag == "form":
            self._in_form = False
        if tag == self._in_key:
            self._in_key = None


class Browser:
    """One origin, a cookie jar, and the headers of a navigation."""

    def __init__(self, url, authority):
        self.origin = url.rstrip("/")
        host = urllib.parse.urlsplit(url).netloc
        context = ssl.create_default_context(cafile=authority)
        self.connection = http.client.HTTPSConnection(host, context=context, timeout=30)
        self.cookies, self.key = {}, ""

    @property
    def session(self):
        """As a Cookie header has it."""
        name = cookie_name(self.origin)
        return f"{name}={self.cookies[name]}"

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

    def open(self, path):
        status, _, text = self.ask("GET", path)
        page = Page(text, path)
        if status != 200 or page.action is None:
            raise Failure(f"login: GET {path} was answered {status}, or has no form that posts there")
        return page

    def submit(self, page, expected, **fields):
        """Posts the page's form and insists on being sent to a path that begins with `expected`."""
        status, location, _ = self.ask("POST", page.action, {**page.hidden, **fields})
        to = urllib.parse.urlsplit(location or "").path
        if status != 303 or not to.startswith(expected):
            raise Failure(f"login: POST {page.path} was answered {status} to {to!r}, not 303 to {expected!r}")


def totp(key, now):
    """RFC 6238 with SHA-1, six digits and 30 seconds."""
    key = "".join(key.split()).upper()
    secret = base64.b32decode(key + "=" * (-len(key) % 8))
    digest = hmac.new(secret, struct.pack(">Q", int(now) // 30), hashlib.sha1).digest()
    offset = digest[-1] & 15
    number = struct.unpack(">I", digest[offset : offset + 4])[0] & 0x7FFFFFFF
    return f"{number % 1_000_000:06d}"


def log_in(url, email, password, authority):
    """Returns the browser with its session, and the key of the device."""
    browser = Browser(url, authority)
    page = browser.open("/.portcullis/login")
    browser.submit(page, "/.portcullis/enrol", email=email, password=password)
    page = browser.open("/.portcullis/enrol")
    if not page.key:
        raise Failure("login: the enrolment page shows no key")
    browser.key = page.key
    browser.submit(page, "/.portcullis/recovery-codes", code=totp(page.key, time.time()), device_name="bench")
    browser.submit(browser.open("/.portcullis/recovery-codes"), "/")
    if cookie_name(url) not in browser.cookies:
        raise Failure("login: no session cookie came")
    return browser


def log_in_again(url, email, password, key, authority):
    """Of a user whose device has this key, and has shown no code in this half minute."""
    browser = Browser(url, authority)
    browser.submit(browser.open("/.portcullis/login"), "/.portcullis/code", email=email, password=password)
    browser.submit(browser.open("/.portcullis/code"), "/", code=totp(key, time.time()))
    return browser
