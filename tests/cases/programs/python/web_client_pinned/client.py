import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx


class Flaky(BaseHTTPRequestHandler):
    calls = 0

    def do_GET(self):
        Flaky.calls += 1
        status = 503 if Flaky.calls == 1 else 200
        body = json.dumps({"ok": status == 200}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        return


def fetch_with_retry(client, path, attempts=3):
    for attempt in range(1, attempts + 1):
        response = client.get(path)
        print(f"attempt {attempt}: {response.status_code}")
        if response.is_success:
            return response.json()
    raise RuntimeError("gave up")


def main():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Flaky)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with httpx.Client(base_url=f"http://127.0.0.1:{server.server_address[1]}") as client:
        print(fetch_with_retry(client, "/status"))
    server.shutdown()


main()
