#!/usr/bin/env python3
"""Requests as bytes to a quorate and to a real Prometheus: what a client library would not send.

  deploy/conformance/raw.py QUORATE PROMETHEUS [--only PART_OF_A_REQUEST] [--show]

Hosts, versions, targets, methods, headers, codings and bodies, each odd in one way; status lines, headers and bodies of
the answers are compared. Differences that raw_known.txt has with their reason are told and no failure; a reason that
no request needs any more is one. Exits with 0, with 1 on a difference that is not known.
"""

import concurrent.futures
import itertools
import os
import re
import socket
import tempfile

import known
from server import Server

OWN = ["--push.listen-address=", "--cluster.listen-address=127.0.0.1:0"]
FLAGS = ["--web.enable-remote-write-receiver", "--web.enable-admin-api"]
QUERY = b"/api/v1/query?query=1&time=1"
LAST = b"Host: x\r\nConnection: close\r\n"
FORM = b"Content-Type: application/x-www-form-urlencoded\r\n"
# Headers that tell of the server, or how long it knew a body to be.
LEFT_OUT = {b"date", b"content-length", b"transfer-encoding"}


def whole(start, headers=LAST, body=b""):
    return start + b"\r\n" + headers + b"\r\n" + body


def get(path, headers=LAST):
    return whole(b"GET " + path + b" HTTP/1.1", headers)


def about_heads():
    closing = b"Connection: close\r\n"
    yield "version 1.0", whole(b"GET " + QUERY + b" HTTP/1.0", closing)
    for host in (b"", b"a b", b"a/b", b"\xff", b"[::1", b"a:b", b"a,b", b"<x>", b'"x"', b"a\x00b"):
        yield "host %r" % host, get(QUERY, b"Host: " + host + b"\r\n" + closing)
    yield "no host", get(QUERY, closing)
    yield "two hosts", get(QUERY, b"Host: a\r\nHost: b\r\n" + closing)
    yield "the same host twice", get(QUERY, b"Host: a\r\nHost: a\r\n" + closing)
    for version in (b"HTTP/1.2", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/1", b"http/1.1", b"HTTP/1.1 ", b"", b"FTP/1.1", b"HTTP/3.0"):
        yield "version %r" % version, whole(b"GET " + QUERY + b" " + version)
    for target in (b"", b"*", b"http://x" + QUERY, b"api/v1/query", b"/" + QUERY, b"/api//v1/query?query=1", b"/api/v1/query?query=1 + 1",
                   b"/api/v1/query?query=1\t+1"):
        yield "target %r" % target, get(target)
    yield "options *", whole(b"OPTIONS * HTTP/1.1")
    for piece in (b"%zz", b"%", b"%4", b"%41", b"%ff", b"%00", b"\xff", b"\x7f", b'"', b"<", b"|", b"\\", b"^", b"`", b"{", b"[", b"#x", b";",
                  b"@", b"%2f", b"%2e%2e", b"\xc3\xa9"):
        for name, path in (("path", b"/api/v1/" + piece), ("label", b"/api/v1/label/" + piece + b"/values"), ("root", b"/" + piece),
                           ("parameter", b"/api/v1/query?time=1&query=1" + piece)):
            yield "%s %r" % (name, piece), get(path)
    for method, path in itertools.product((b"get", b"G ET", b"G\xffT", b"", b"GE(T", b"PROPFIND", b"TRACE", b"CONNECT", b"OPTIONS"), (QUERY, b"/-/ready")):
        yield "method %r %s" % (method, path.decode()), whole(method + b" " + path + b" HTTP/1.1")
    for first in (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"hello\r\n\r\n", b"hello world\r\n\r\n", b"\r\n" + get(QUERY), get(QUERY).replace(b"\r\n", b"\n")):
        yield "first %r" % first[:12], first


def about_headers():
    for header in (b"X : y", b"X", b": y", b"X\xff: y", b"X: \xff", b"X: \x01", b"X: a\x00b", b"X(: y", b"X:y", b"X:", b"X: a\r\n b",
                   b"Content-Length: x", b"Content-Length: -1", b"Content-Length: 0\r\nContent-Length: 0", b"Content-Length: 0\r\nContent-Length: 1",
                   b"Content-Length: 99999999999999999999", b"Transfer-Encoding: gzip", b"Transfer-Encoding: identity",
                   b"Transfer-Encoding: chunked, chunked", b"Expect: x", b"Range: bytes=0-3", b"If-None-Match: *", b"Accept: x",
                   b"Accept-Encoding: gzip;q=x", b"Accept-Encoding: ,", b"Origin: a", b"X-HTTP-Method-Override: DELETE", b"Content-Encoding: gzip"):
        for method in (b"GET", b"POST"):
            yield "header %r %s" % (header, method.decode()), whole(method + b" " + QUERY + b" HTTP/1.1", LAST + header + b"\r\n")


def about_bodies():
    def sent(start, kind, body):
        return whole(start + b" HTTP/1.1", LAST + kind + b"Content-Length: %d\r\n" % len(body), body)
    for body in (b"query=1", b"query=1&query=2", b"query=%zz", b"query=1;x=2", b"query", b"=", b"&", b"\xff\xfe", b"query=\xff", b"query=1\r\n",
                 b"query=1&limit=x", b"query=1&timeout=x", b"query=1&time=5"):
        for start in (b"POST /api/v1/query?time=1", b"GET /api/v1/query?time=1&query=3", b"PUT /api/v1/query?time=1&query=3"):
            yield "body %r %s" % (body, start.decode()), sent(start, FORM, body)
        yield "body %r of series" % body, sent(b"POST /api/v1/series?start=1&end=2", FORM, b"match[]=s&" + body)
    for kind in (b"", b"Content-Type:\r\n", b"Content-Type: text/plain\r\n", b"Content-Type: application/json\r\n", b"Content-Type: ;\r\n",
                 b"Content-Type: application/x-www-form-urlencoded, x\r\n", b"Content-Type: multipart/form-data\r\n", b"Content-Type: /\r\n",
                 FORM + FORM, FORM + b"Content-Type: x\r\n"):
        for start in (b"POST /api/v1/query?time=1", b"POST /api/v1/query?time=1&query=2"):
            yield "kind %r %s" % (kind, start.decode()), sent(start, kind, b"query=1")
    chunked = LAST + FORM + b"Transfer-Encoding: chunked\r\n"
    for body in (b"7\r\nquery=1\r\n0\r\n\r\n", b"7;a=b\r\nquery=1\r\n0\r\nX: y\r\n\r\n"):
        yield "chunked %r" % body, whole(b"POST /api/v1/query?time=1 HTTP/1.1", chunked, body)


def answer(url, request):
    """Status line, headers in the order of their names, and body."""
    host, port = url[len("http://"):].split(":")
    found = b""
    with socket.create_connection((host, int(port)), 10) as connection:
        try:
            connection.sendall(request)
            while piece := connection.recv(65536):
                found += piece
        except OSError:
            # Whoever has not read all of a request resets the connection.
            pass
    head, _, body = found.partition(b"\r\n\r\n")
    status, *headers = head.split(b"\r\n")
    named = (header.partition(b":") for header in headers)
    kept = sorted((name.lower(), value.strip()) for name, _, value in named if name.lower() not in LEFT_OUT)
    return status, kept, re.sub(rb"^[0-9a-f]+\r\n(.*)\r\n0\r\n\r\n$", rb"\1", body, flags=re.DOTALL)


def main():
    chosen = known.options("REQUEST")
    requests = [one for one in itertools.chain(about_heads(), about_headers(), about_bodies()) if chosen.only in one[0]]
    verdict, started = known.Verdict("raw_known.txt", chosen), []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for name, binary, flags in (("q", chosen.quorate, OWN), ("p", chosen.prometheus, [])):
                started.append(Server(binary, os.path.join(folder, name), "", FLAGS + flags))
            with concurrent.futures.ThreadPoolExecutor(4) as threads:
                both = threads.map(lambda one: [answer(server.url, one[1]) for server in started], requests)
                for (name, _), (ours, theirs) in zip(requests, both):
                    if ours != theirs:
                        verdict.tell(name, ours, theirs)
        finally:
            for server in started:
                server.stop()
    print("%d requests" % len(requests))
    verdict.end()


if __name__ == "__main__":
    main()
