"""What git runs as pre-receive and post-receive: a stand-alone script of the standard library.

It tells the server what a push wants to move, prints what the server answers, line by line, and exits
with what the server says. A server that cannot be reached refuses the push: a ref never moves without
its inbox row (law 2). Started as `python -I -S git_hook.py PHASE`.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
from urllib.parse import urlsplit


def _request(phase: str) -> bytes:
    updates = [line.rstrip("\n").split(" ", 2) for line in sys.stdin]
    count = int(os.environ.get("GIT_PUSH_OPTION_COUNT", "0"))
    options = [os.environ.get(f"GIT_PUSH_OPTION_{number}", "") for number in range(count)]
    return json.dumps({"phase": phase, "updates": updates, "options": options}).encode()


def _converse(phase: str, body: bytes) -> int:
    url = urlsplit(os.environ["SHIPWAY_PUSH_URL"])
    connection = http.client.HTTPConnection(url.hostname or "127.0.0.1", url.port or 80)
    headers = {
        "Authorization": f"Bearer {os.environ['SHIPWAY_PUSH_TOKEN']}",
        "Content-Type": "application/json",
    }
    connection.request("POST", f"{url.path}/{phase}", body, headers)
    response = connection.getresponse()
    while line := response.readline():
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
    return 0 if response.status == 200 else 1


def main() -> int:
    phase = sys.argv[1]
    try:
        return _converse(phase, _request(phase))
    except OSError as error:
        print(f"shipway: the server does not answer ({error}); nothing was changed, push again")
        return 1 if phase == "pre-receive" else 0


if __name__ == "__main__":
    sys.exit(main())
