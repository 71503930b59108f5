#!/usr/bin/env python3
"""Scrape product ratings from a web page."""
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import requests
from bs4 import BeautifulSoup

PAGE = """
<html><body>
  <ul class="products">
    <li class="product"><h2>Kala Chashma</h2><span class="stars">4</span></li>
    <li class="product"><h2>Lal Topi</h2><span class="stars">5</span></li>
  </ul>
</body></html>
"""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = PAGE.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def scrape(url: str) -> list[dict]:
    response = requests.get(url, timeout=10)
    response.raise_for_status()
    print("status", response.status_code)
    soup = BeautifulSoup(response.text, "html.parser")
    return [
        {"name": item.h2.text, "stars": int(item.find("span", class_="stars").text)}
        for item in soup.select("li.product")
    ]


if __name__ == "__main__":
    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    products = scrape(f"http://127.0.0.1:{server.server_port}/")
    for number, product in enumerate(products, 1):
        print(f"{number}. {product['name']} - {product['stars']} stars")
    print(f"average: {sum(p['stars'] for p in products) / len(products):.2f}")
    server.shutdown()
