#!/usr/bin/env python3
"""A reference receiver for the shares that ReserveGrid forwards: what a pool's backend has to check, and no more.

    RECEIVER_KEYS='k1=the shared secret' ./receiver.py --listen 127.0.0.1:34280 --books shares.sqlite

Python 3.9 or later, standard library alone. In the gateway's configuration: [pool] url =
"http://127.0.0.1:34280/shares", key_id = "k1", and the same secret.

A request counts when all of this holds, checked in this order:

1. its key id is known: RECEIVER_KEYS has one `id=secret` a line; while a key is exchanged, both are there;
2. its time is within five minutes of ours, so that an old request cannot be played again for ever;
3. its signature is right: hex HMAC-SHA256 of `timestamp "." body`, over the exact bytes, compared in constant time;
4. each share is new: `share_id` is the key of the books, so that a share that comes again (because our answer got
   lost, or somebody replays a request within the five minutes) is answered as before and not paid again.

What the gateway makes of the answer: 200 with a result for each share is final for these shares; 4xx is final for
the request (401, 403, 404, 405, 408, 425 and 429 are not); anything else, and no answer, is sent again. Say yes only
once it is durable: here, after the commit.
"""

import argparse
import hashlib
import hmac
import json
import os
import sqlite3
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MAX_AGE = 300  # seconds that a request's time may be off
MAX_BODY = 32 << 20  # bytes; far more than a full batch


class Books:
    """What is paid, by share id. One writer at a time; a batch is booked as a whole or not at all."""

    def __init__(self, path):
        self.lock = threading.Lock()
        self.db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = FULL")  # a commit is on the disk when it returns
        self.db.execute(
            "CREATE TABLE IF NOT EXISTS shares (share_id TEXT PRIMARY KEY, user TEXT NOT NULL,"
            " difficulty REAL NOT NULL, accepted INTEGER NOT NULL, reason TEXT NOT NULL, first_seen INTEGER NOT NULL)"
        )

    def book(self, shares):
        """Books what is new and gives the result of every share: that of the first time, for ever."""
        with self.lock:
            self.db.execute("BEGIN IMMEDIATE")
            try:
                results = [self._one(share) for share in shares]
                self.db.execute("COMMIT")
            except BaseException:
                self.db.execute("ROLLBACK")
                raise
        return results

    def _one(self, share):
        accepted, reason = judge(share)
        self.db.execute(
            "INSERT INTO shares VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (share_id) DO NOTHING",
            (share["share_id"], share["user_identity"], share["difficulty"], accepted, reason, int(time.time())),
        )
        row = self.db.execute("SELECT accepted, reason FROM shares WHERE share_id = ?", (share["share_id"],))
        accepted, reason = row.fetchone()
        return {"share_id": share["share_id"], "accepted": bool(accepted), "reason": reason}


def judge(share):
    """The pool's own rules. Here: everybody is paid, except who is called "nobody"."""
    if share["user_identity"].split(".")[0] == "nobody":
        return False, "no such account"
    return True, ""


def well_formed(share):
    """Whether a share has what the books need; the gateway's shares have more."""
    return (
        isinstance(share, dict)
        and isinstance(share.get("share_id"), str)
        and len(share["share_id"]) == 64
        and isinstance(share.get("user_identity"), str)
        and isinstance(share.get("difficulty"), (int, float))
    )


def why_not(keys, headers, body, now):
    """Why a request is not to be trusted; None when it is."""
    secret = keys.get(headers.get("X-ReserveGrid-Key-Id", ""))
    if secret is None:
        return "unknown key id"
    timestamp = headers.get("X-ReserveGrid-Timestamp", "")
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) < 12):
        return "no time"
    if abs(int(timestamp) - now) > MAX_AGE:
        return "too old, or from the future: are both clocks right?"
    right = hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(right.encode(), headers.get("X-ReserveGrid-Signature", "").encode()):
        return "wrong signature"
    return None


class Receiver(BaseHTTPRequestHandler):
    """POST /shares."""

    protocol_version = "HTTP/1.1"  # the gateway keeps its connections
    timeout = 60  # seconds for a peer to say something

    def do_POST(self):
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > MAX_BODY:
            self.close_connection = True
            return self.answer(413, {"error": "no length, or too long"})
        body = self.rfile.read(int(length))
        if self.path != "/shares":
            return self.answer(404, {"error": "POST /shares"})
        wrong = why_not(self.server.keys, self.headers, body, int(time.time()))
        if wrong:
            self.log_message("refused: %s", wrong)
            return self.answer(401, {"error": wrong})
        try:
            shares = json.loads(body)["shares"]
        except (ValueError, KeyError, TypeError):
            shares = None
        if not isinstance(shares, list) or not all(well_formed(share) for share in shares):
            return self.answer(400, {"error": "not a list of shares"})
        try:
            results = self.server.books.book(shares)
        except sqlite3.Error as error:
            # Not a word about the shares: the gateway sends them again.
            return self.answer(503, {"error": str(error)})
        return self.answer(200, {"results": results})

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code="-", size="-"):
        pass  # one line a request is too many


def read_keys(text):
    """`id=secret` lines, by id."""
    pairs = [line.strip().partition("=") for line in text.splitlines() if line.strip()]
    return {key_id: secret for key_id, _, secret in pairs if key_id and secret}


def main():
    arguments = argparse.ArgumentParser(description="Receives and books the shares of ReserveGrid.")
    arguments.add_argument("--listen", default="127.0.0.1:34280", metavar="HOST:PORT")
    arguments.add_argument("--books", default="shares.sqlite", metavar="FILE")
    options = arguments.parse_args()
    keys = read_keys(os.environ.get("RECEIVER_KEYS", ""))
    if not keys:
        sys.exit("RECEIVER_KEYS holds no key; write one id=secret a line")
    host, _, port = options.listen.rpartition(":")
    server = ThreadingHTTPServer((host, int(port)), Receiver)
    server.daemon_threads = True
    server.keys, server.books = keys, Books(options.books)
    print("receiving on http://%s:%d/shares" % server.server_address, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
