"""Who may call the admin port."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IResponse
from twisted.web.resource import Resource
from twisted.web.server import Request

from dapi.server.admin_door import AdminDoor, Guesses, Sessions
from tests.logs import log_of
from tests.unit.server.resource_client import ResourceClient

TOKEN = "0123456789abcdef"


class Guarded(Resource):
    """Answers everything, and counts."""

    isLeaf = True
    calls = 0

    def render(self, request: Request) -> bytes:
        self.calls += 1
        return b"secret"


class DoorTestCase(SynchronousTestCase):
    token: str | None = TOKEN

    def setUp(self) -> None:
        self.clock = Clock()
        self.log = log_of(self)
        self.guarded = Guarded()
        self.door = AdminDoor(self.clock, self.guarded, self.token, hosts=["dapi.example"], open_paths=["/healthz"])

    def got(self, method: str, path: str, data: bytes = b"", **headers: str) -> IResponse:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        # A new one each time: it keeps no cookies of its own.
        http = ResourceClient(self, self.door)
        asked = http.ask(method, f"http://127.0.0.1:9200{path}", data, sent, allow_redirects=False)
        response, self.body = http.answered(asked)
        return response

    def code(self, method: str, path: str, data: bytes = b"", **headers: str) -> int:
        return int(self.got(method, path, data, **headers).code)


class WithoutTokenTests(DoorTestCase):
    token = None

    def test_everything_is_passed_on(self) -> None:
        for path in ("/admin/v1/status", "/", "/login"):
            self.assertEqual((self.code("GET", path), self.body), (200, b"secret"))

    def test_what_pages_of_other_sites_send_is_not(self) -> None:
        self.assertEqual(self.code("POST", "/", origin="http://example.com"), 403)
        self.assertEqual(self.code("GET", "/", host="example.com"), 403)
        self.assertEqual(self.code("GET", "/", host="dapi.example:9200"), 200)
        self.assertEqual(self.guarded.calls, 1)


class TokenTests(DoorTestCase):
    def test_a_bearer_token(self) -> None:
        for right in (f"Bearer {TOKEN}", f"bearer  {TOKEN} "):
            self.assertEqual((self.code("GET", "/x", authorization=right), self.body), (200, b"secret"))
        wrong = (f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}0", "Bearer", "Bearer ", f"Basic {TOKEN}", TOKEN, "Bearer é")
        for each in wrong:
            response = self.got("POST", "/x", authorization=each)
            self.assertEqual((response.code, b"secret" in self.body), (401, False), each)
            self.assertEqual(response.headers.getRawHeaders("www-authenticate"), ['Bearer realm="dapi"'])
            self.assertNotIn(TOKEN[:8].encode(), self.body)
        self.assertEqual(self.guarded.calls, 2)
        self.assertFalse(self.log.lines(containing=TOKEN[:8]))

    def test_open_paths_need_none_and_are_asked_under_any_name(self) -> None:
        self.assertEqual(self.code("GET", "/healthz", host="anything.example"), 200)
        self.assertEqual(self.code("GET", "/healthz/", host="anything.example"), 403)
        self.assertEqual(self.code("GET", "/healthz/x"), 401)

    def test_the_hosts_and_origins_are_looked_at_first(self) -> None:
        right = f"Bearer {TOKEN}"
        self.assertEqual(self.code("GET", "/x", authorization=right, host="example.com"), 403)
        self.assertEqual(self.code("POST", "/x", authorization=right, origin="http://example.com"), 403)
        self.assertEqual(self.code("POST", "/login", b"token=" + TOKEN.encode(), origin="http://example.com"), 403)

    def test_wrong_tokens_are_bounded_by_address(self) -> None:
        for _ in range(10):
            self.assertEqual(self.code("GET", "/x", authorization="Bearer wrong"), 401)
        response = self.got("GET", "/x", authorization=f"Bearer {TOKEN}")
        self.assertEqual((response.code, response.headers.getRawHeaders("retry-after")), (429, ["7"]))
        self.assertEqual(self.code("POST", "/login", b"token=" + TOKEN.encode()), 429)
        # No token is no guess.
        self.assertEqual(self.code("GET", "/x"), 401)
        self.clock.advance(6)
        self.assertEqual(self.code("GET", "/x", authorization=f"Bearer {TOKEN}"), 200)
        self.assertEqual(len(self.log.warnings("a wrong admin token came from")), 1)


class LoginTests(DoorTestCase):
    def log_in(self, **headers: str) -> str:
        response = self.got("POST", "/login", b"token=" + TOKEN.encode(), **headers)
        self.assertEqual((response.code, response.headers.getRawHeaders("location")), (303, ["/"]))
        (cookie,) = response.headers.getRawHeaders("set-cookie") or [""]
        value, *attributes = cookie.split("; ")
        self.assertEqual(attributes, ["Path=/", "Max-Age=43200", "HttpOnly", "SameSite=Strict"])
        return str(value)

    def test_a_page_leads_to_the_form(self) -> None:
        response = self.got("GET", "/", accept="text/html,*/*")
        self.assertEqual((response.code, response.headers.getRawHeaders("location")), (303, ["/login"]))
        response = self.got("GET", "/login")
        self.assertEqual(
            (response.code, response.headers.getRawHeaders("content-type")), (200, ["text/html; charset=utf-8"])
        )
        self.assertIn(b'type="password"', self.body)
        (policy,) = response.headers.getRawHeaders("content-security-policy") or [""]
        self.assertIn("frame-ancestors 'none'", policy)
        self.assertEqual(self.code("PUT", "/login"), 405)

    def test_a_session_until_the_log_out(self) -> None:
        cookie = self.log_in()
        self.assertNotIn(TOKEN, cookie)
        self.assertEqual((self.code("GET", "/x", cookie=cookie), self.body), (200, b"secret"))
        self.assertEqual(self.code("POST", "/x", cookie=cookie, origin="http://example.com"), 403)
        self.assertEqual(self.code("GET", "/logout", cookie=cookie), 405)
        self.assertEqual([self.code("GET", "/login", cookie=each) for each in ("x=y", cookie)], [200, 200])
        self.assertIn(b'action="/logout"', self.body)
        response = self.got("POST", "/logout", cookie=cookie)
        self.assertEqual((response.code, response.headers.getRawHeaders("location")), (303, ["/login"]))
        self.assertIn("Max-Age=0", (response.headers.getRawHeaders("set-cookie") or [""])[0])
        self.assertEqual(self.code("GET", "/x", cookie=cookie), 401)

    def test_a_session_ends_by_itself_and_with_the_next_log_in(self) -> None:
        first = self.log_in()
        second = self.log_in(cookie=first)
        self.assertEqual((self.code("GET", "/x", cookie=first), self.code("GET", "/x", cookie=second)), (401, 200))
        self.clock.advance(12 * 3600)
        self.assertEqual(self.code("GET", "/x", cookie=second), 401)

    def test_a_wrong_token_shows_the_form_again(self) -> None:
        for data in (b"token=wrong", b"token=", b"", b"x=y", b"token=" + b"<" * 5000, b"\xff"):
            response = self.got("POST", "/login", data)
            self.assertEqual((response.code, response.headers.getRawHeaders("set-cookie")), (401, None))
            self.assertIn(b"the admin token is wrong", self.body)
        for cookie in ("dapi_session=", "dapi_session=x", "dapi_session", "other=1"):
            self.assertEqual(self.code("GET", "/x", cookie=cookie), 401)

    def test_what_is_kept_is_bounded(self) -> None:
        sessions = Sessions(self.clock)
        names = [sessions.begin().encode() for _ in range(100)]
        self.assertEqual([sessions.has(name) for name in names], [False] * 36 + [True] * 64)
        guesses: Any = Guesses(self.clock)
        for number in range(3000):
            guesses.record_wrong(str(number))
        self.assertEqual(len(guesses._full_at), 1024)
