"""HTTP as clients may misuse it: what is refused, what is closed, and that the others are answered meanwhile."""

import json
import select
import socket
import threading
import time
from contextlib import suppress

import pytest

from tests.serving.conftest import ENCODED, LAST, LONG, ONE, Live, connections, request, until
from understudy.serving.app import BODIES, SHORT
from understudy.serving.request import BODY

SLOW = request({"inputs": [ENCODED] * 200, "params": {"output": "detail"}})


def statuses(answer: bytes) -> list[bytes]:
    return [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]]


def test_requests_one_behind_the_other_are_answered_in_their_order(live: Live) -> None:
    long = request({"inputs": [ENCODED] * 2_000})
    refused = request({"inputs": [[1]]})
    answer, _ = live.raw(long + refused + ONE + long + LAST)
    assert statuses(answer) == [b"200", b"400", b"200", b"200", b"200"]
    assert answer.count(b'"Y"') == 4_002


def test_short_requests_for_reasons_are_answered_in_their_order(live: Live) -> None:
    asked = json.dumps({"inputs": [ENCODED], "params": {"output": "detail"}})
    plain, hidden = (request(body.encode()) for body in (asked, asked.replace("detail", "detai\\u006c")))
    answer, _ = live.raw(ONE + plain + ONE + hidden + LAST)
    assert statuses(answer) == [b"200"] * 5
    assert [b"threshold" in part for part in answer.split(b"HTTP/1.1 ")[1:]] == [False, True, False, True, False]


def test_very_many_requests_behind_each_other_are_answered_and_hold_up_nobody(live: Live) -> None:
    before = live.memory()
    answers: list[bytes] = []
    asking = threading.Thread(
        target=lambda: answers.append(live.raw(b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n" * 5_000 + LAST)[0])
    )
    asking.start()
    assert live.ask({"inputs": [ENCODED]}).status == 200
    asking.join()
    assert answers[0].count(b"HTTP/1.1 200") == 5_001
    assert live.memory() < before + 20


def test_bodies_in_chunks_and_in_parts_are_answered(live: Live) -> None:
    content = json.dumps({"inputs": [ENCODED]}).encode()
    head = b"POST /invocations HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = [b"%x\r\n%s\r\n" % (len(part), part) for part in (content[:9], content[9:])]
    assert live.raw(head, *chunks, b"0\r\n\r\n", pause=0.1)[0].startswith(b"HTTP/1.1 200")
    assert live.raw(LAST[:50], LAST[50:-9], LAST[-9:], pause=0.1)[0].startswith(b"HTTP/1.1 200")
    expects = LAST.replace(b"Host: a", b"Host: a\r\nExpect: 100-continue")
    assert live.raw(expects[:-9], expects[-9:], pause=0.1)[0].startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200")


def test_slow_clients_are_closed_and_the_others_answered(live: Live) -> None:
    before = live.memory()
    cases = {
        "half a line": ([ONE[:9]], []),
        "a header now and then": ([ONE[:28], *[b"A: b\r\n"] * 20], []),
        "half a body": ([ONE[:-9]], [b"408"]),
        "a long body now and then": ([request({"inputs": [ENCODED] * 2_000})[:-99], *[b" "] * 20], [b"408"]),
        "half a body in chunks": ([CHUNKED + b"3\r\nabc\r\n"], [b"408"]),
        "half a body behind another": ([ONE + ONE[:-9]], [b"200", b"408"]),
        "nothing": ([], []),
        "ends of lines and no line": ([b"\r\n", b"\r\n"], []),
        "half of 50 MB": ([b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\n["], [b"413"]),
    }
    answers: dict[str, tuple[bytes, float]] = {}

    def ask(name: str) -> None:
        answers[name] = live.raw(*cases[name][0], pause=0.5 if len(cases[name][0]) > 1 else 0)

    threads = [threading.Thread(target=ask, args=(name,)) for name in cases]
    for thread in threads:
        thread.start()
    time.sleep(1)
    assert live.ask({"inputs": [ENCODED]}).status == 200
    for thread in threads:
        thread.join()
    assert {name: statuses(answer) for name, (answer, _) in answers.items()} == {
        name: wanted for name, (_, wanted) in cases.items()
    }
    # A client that goes on sending sees the end only when it has sent all.
    assert max(seconds for name, (_, seconds) in answers.items() if "now and then" not in name) < 18
    assert live.memory() < before + 20


def test_50_megabytes_are_refused_however_they_come(live: Live) -> None:
    before = live.memory()
    chunk = b"%x\r\n%b\r\n" % (1_000_000, b" " * 1_000_000)
    assert statuses(live.raw(CHUNKED, *[chunk] * 50)[0]) == [b"413"]
    assert live.ask(b" " * 50_000_000).status == 413
    assert live.ask(b" " * 50_000_000, path="/health").status == 405
    assert live.ask(b" " * BODY).status == 400
    assert live.memory() < before + 40


def test_what_comes_behind_a_body_in_chunks_has_an_end(live: Live) -> None:
    before = live.memory()
    answer, _ = live.raw(CHUNKED + b"0\r\n", *[b"a:b\r\n" * 200_000] * 20)
    assert statuses(answer) in ([], [b"400"])  # the client may see no answer, for it goes on sending
    assert live.memory() < before + 20


def test_answers_that_nobody_reads_take_no_memory(live: Live) -> None:
    before = live.memory()
    opened = connections(live, 20)
    for connection in opened:
        connection.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                connection.send(b"GET /schema HTTP/1.1\r\nHost: a\r\n\r\n" * 1_000)
    time.sleep(2)
    assert live.ask({"inputs": [ENCODED]}).status == 200
    assert live.memory() < before + 40
    for connection in opened:
        connection.close()


def test_a_thousand_idle_connections_hold_up_nobody(live: Live) -> None:
    before = live.memory()
    opened = connections(live, 1_000)
    for connection in opened[:200]:
        connection.sendall(ONE)
    for connection in opened[:200]:
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
    assert {live.ask({"inputs": [ENCODED]}).status for _ in range(10)} == {200}
    assert live.memory() < before + 60
    for connection in opened:
        connection.close()


def test_more_than_a_worker_may_hold_is_told_to_come_again(live: Live) -> None:
    before = live.memory()
    whole = json.dumps({"inputs": [ENCODED]}).encode().ljust(BODY)
    head = request(whole)[: -len(whole)]
    opened = connections(live, 2 * (2 * BODIES // BODY))
    for connection in opened:
        connection.sendall(head)

    def send(connection: socket.socket) -> None:
        with suppress(OSError):
            connection.sendall(whole[:-1])

    sending = [threading.Thread(target=send, args=(connection,)) for connection in opened]
    for thread in sending:
        thread.start()
    assert live.ask({"inputs": [ENCODED]}).status == 200
    until(lambda: select.select(opened, [], [], 0)[0])
    told = [connection.recv(1000) for connection in select.select(opened, [], [], 0)[0]]
    assert live.memory() < before + 2.5 * 2 * BODIES / 1e6
    assert any(answer.startswith(b"HTTP/1.1 503") and b"retry-after: 1\r\n" in answer for answer in told)
    for thread in sending:
        thread.join()
    for connection in opened:
        connection.close()
    until(lambda: live.ask(b" " * BODY).status == 400)


def test_a_refusal_waits_for_the_answers_before_it(live: Live) -> None:
    for wrong in (b"secret\r\n\r\n", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\n"):
        assert [status[:1] for status in statuses(live.raw(SLOW + ONE + wrong)[0])] == [b"2", b"2", b"4"]
    assert statuses(live.raw(SLOW + ONE + ONE[:-9])[0]) == [b"200", b"200", b"408"]


def test_a_client_that_hangs_up_leaves_no_word(live: Live) -> None:
    log = live.log.read_text()
    half = request({"inputs": [ENCODED] * 2_000})
    for sent in (SLOW * 2, half[:-99], ONE[:-9], CHUNKED + b"3\r\nabc\r\n", CHUNKED + b"x", ONE[:40]):
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", live.port)) as connection:
                connection.sendall(sent)
    assert live.ask({"inputs": [ENCODED], "params": {"output": "detail"}}).status == 200
    assert live.log.read_text() == log


def test_clients_that_break_off_take_no_room_with_them(live: Live) -> None:
    part = json.dumps({"inputs": [ENCODED]}).encode().ljust(BODY)[: BODY // 2]
    for _ in range(60):
        with socket.create_connection(("127.0.0.1", live.port)) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # ends with a reset
            connection.sendall(ONE[: ONE.index(b"Content-Length")] + b"Content-Length: %d\r\n\r\n" % BODY + part)
    content = json.dumps({"inputs": [ENCODED]}).ljust(SHORT + 1)
    until(lambda: {live.ask(content).status for _ in range(20)} == {200}, 20)
    opened = connections(live, 200)
    for connection in opened:
        connection.sendall(LONG)
    for connection in opened:
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        connection.close()


def test_what_is_no_http_is_refused(live: Live) -> None:
    for sent in (b"secret\r\n\r\n", LAST.replace(b"Content-Length", b"Content-Length: 5\r\nContent-Length")):
        answer, _ = live.raw(sent)
        assert answer.startswith(b"HTTP/1.1 400")
        assert b"secret" not in answer
    assert live.raw(b"GET /ping HTTP/1.1\r\nHost: a\r\nA: " + b"x" * 140_000)[0].startswith(b"HTTP/1.1 431")


CHUNKED = b"POST /invocations HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def framed(*lines: str, version: str = "1.1") -> bytes:
    """A request in chunks with these headers, and a whole one behind it."""
    content = json.dumps({"inputs": [ENCODED]}).encode()
    head = "\r\n".join([f"POST /invocations HTTP/{version}", *lines, "", ""])
    return head.encode() + b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content) + LAST


@pytest.mark.parametrize(
    ("status", "lines"),
    [
        (501, ["gzip, chunked"]),
        (501, ["gzip,chunked"]),
        (501, [", chunked"]),
        (501, ["gzip", "chunked"]),
        (501, ["chunked, chunked"]),
        (501, ["chunked", "chunked"]),
        (400, ["gzip"]),
        (400, ["identity"]),
        (400, ["xchunked"]),
        (400, ["chunked;q=1"]),
        (400, [""]),
        (400, ["chunked, gzip"]),
        (400, ["chunked", "gzip"]),
        (400, ["chunked", "identity"]),
        (400, ["gzip\r\nConnection: upgrade\r\nUpgrade: h2c"]),
        (400, ["gzip\r\nContent-Length: 9"]),
    ],
)
def test_a_transfer_encoding_that_is_not_chunked_alone_is_refused_with_all_behind_it(
    live: Live, status: int, lines: list[str]
) -> None:
    answer, _ = live.raw(framed("Host: a", *(f"Transfer-Encoding: {line}" for line in lines)))
    assert statuses(answer) == [b"%d" % status]
    assert b"gzip" not in answer


def test_chunks_are_of_http_1_1_and_by_whatever_case(live: Live) -> None:
    assert statuses(live.raw(framed("Host: a", "Transfer-Encoding: Chunked"))[0]) == [b"200", b"200"]
    assert statuses(live.raw(framed("Host: a", "Transfer-Encoding: chunked", version="1.0"))[0]) == [b"400"]


def test_a_length_beside_chunks_counts_for_nothing_and_ends_the_connection(live: Live) -> None:
    assert statuses(live.raw(framed("Host: a", "Transfer-Encoding: chunked", "Content-Length: 9"))[0]) == [b"200"]


@pytest.mark.parametrize(
    "hosts",
    [[], [""], ["a", "b"], ["a", "a"], ["a", ""], ["a b"], ["a/b"], ["a@b"], ["a:b"], ["a, b"], ["[::1"], ["%zz"]],
)
def test_a_request_without_one_valid_host_is_refused_with_all_behind_it(live: Live, hosts: list[str]) -> None:
    lines = "".join(f"Host: {host}\r\n" for host in hosts).encode()
    for whole in (ONE, b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n", ONE.replace(b"/invocations", b"http://a/invocations")):
        assert statuses(live.raw(whole.replace(b"Host: a\r\n", lines) + LAST)[0]) == [b"400"]


def test_hosts_of_every_form_are_taken_and_http_1_0_needs_none(live: Live) -> None:
    for host in (b"a.example:80", b"a_b", b"127.0.0.1:1234", b"[::1]:1234", b"a:", b"xn--a%C3%A4"):
        assert live.raw(LAST.replace(b"Host: a", b"Host: " + host))[0].startswith(b"HTTP/1.1 200")
    old = LAST.replace(b"HTTP/1.1", b"HTTP/1.0")
    assert live.raw(old.replace(b"Host: a\r\n", b""))[0].startswith(b"HTTP/1.0 200")
    assert live.raw(old.replace(b"Host: a\r\n", b"Host: a\r\nHost: a\r\n"))[0].startswith(b"HTTP/1.0 400")


def test_what_a_body_is_may_be_said_once(live: Live) -> None:
    for lines in (["Content-Encoding: gzip", "Content-Encoding: identity"], ["Content-Type: text/csv"] * 2):
        assert live.raw(request({"inputs": [ENCODED]}, "Connection: close", *lines))[0].startswith(b"HTTP/1.1 415")


def test_targets_of_every_form_are_understood(live: Live) -> None:
    for target in (b"/invocations?a=b", b"http://a/invocations", b"http://a:1/invocations?a"):
        assert live.raw(LAST.replace(b"/invocations", target))[0].startswith(b"HTTP/1.1 200")
    # A target without a path means the path /, which is the form's.
    for line, status in ((b"OPTIONS *", b"404"), (b"GET http://a", b"200"), (b"CONNECT a:1", b"404")):
        answer, _ = live.raw(line + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 " + status)
