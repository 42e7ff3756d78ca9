"""URLs and hosts, taken apart."""

from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import text
from twisted.trial.unittest import SynchronousTestCase

from dapi.messages.urls import ip_address_of, is_loopback, parse_url, without_user

FORM = "it is not of the form scheme://host:port/path"
PORT = "its port is above 65535"
HOST = "its host is neither a name nor an address"
BAD = {
    "": FORM,
    "node:8080": FORM,
    "http:node": FORM,
    "http://node:": FORM,
    "http://node:65536": PORT,
    "http://node:99999": PORT,
    "http://node:100000": FORM,
    "http://node:eight": FORM,
    "http://node:+8080": FORM,
    "http://node:-1": FORM,
    "http://node:\u0663": FORM,
    "http://[::1:8080": FORM,
    "http://[1::2::3]:8080": HOST,
    "http://[hunter2]:8080": FORM,
    "http://user:hunter2@hunter2@node:8080": HOST,
    "http://user:hunter2": FORM,
}


class UrlTests(SynchronousTestCase):
    def test_parts(self) -> None:
        url = parse_url("HTTPS://user@Node.Example:8443/a//b%2f?token=A&c#D")
        self.assertEqual((url.scheme, url.userinfo, url.host, url.port), ("https", "user", "node.example", 8443))
        self.assertEqual((url.path, url.query, url.fragment), (("a", "", "b%2f"), (("token", "A"), ("c", None)), "D"))

    def test_hosts(self) -> None:
        self.assertEqual(parse_url("ws://[2001:DB8::1]:8080").host, "2001:db8::1")
        self.assertEqual(parse_url("//localhost:9200").host, "localhost")
        self.assertEqual(parse_url("http:///path").host, "")

    def test_ports(self) -> None:
        ports = {text: parse_url(text).port for text in ("http://a", "https://a", "tcp://a", "//a", "http://a:0")}
        self.assertEqual(list(ports.values()), [80, 443, None, None, 0])

    def test_the_text_comes_back(self) -> None:
        for url in ("http://a", "http://a/", "ws://a:1/%zz?x=%20&y==", "http://[::1]:8080/v3//?q"):
            self.assertEqual(parse_url(url).to_text(), url)

    def test_only_scheme_and_host_are_made_small(self) -> None:
        """Another spelling of an escape is another path to whoever compares them."""
        url = parse_url("HTTP://U%7eser:p%41@HOST:65535/%7ea/%2f?b=%7e&C=%2d#%7e")
        self.assertEqual(url.to_text(with_password=True), "http://U%7eser:p%41@host:65535/%7ea/%2f?b=%7e&C=%2d#%7e")

    def test_of_bad_ones_it_is_said_what_is_wrong_and_they_are_not_quoted(self) -> None:
        self.assertEqual({url: str(self.assertRaises(ValueError, parse_url, url)) for url in BAD}, BAD)

    @given(text(alphabet="aZ09:/?#[]@%. \n\u0663"))
    def test_raises_nothing_but_value_errors(self, rest: str) -> None:
        try:
            url = parse_url(f"http://{rest}")
        except ValueError:
            return
        self.assertIn(url.port, range(65536))

    def test_without_user(self) -> None:
        self.assertEqual(without_user("http://u:hunter2@node:8080/v3?a=b"), "http://node:8080/v3?a=b")
        self.assertEqual(without_user("http://[::1]:8080"), "http://[::1]:8080")


class HostTests(SynchronousTestCase):
    def test_addresses_and_names(self) -> None:
        self.assertEqual([str(ip_address_of(host)) for host in ("::1", "10.0.0.1")], ["::1", "10.0.0.1"])
        self.assertEqual([ip_address_of(host) for host in ("node", "")], [None, None])

    def test_loopback(self) -> None:
        hosts = ("localhost", "127.0.0.1", "127.8.8.8", "::1", "10.0.0.1", "0.0.0.0", "node", "")
        self.assertEqual([is_loopback(host) for host in hosts], [True] * 4 + [False] * 4)
