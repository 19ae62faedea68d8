"""A small web shop: web.py [PORT]. /checkout prices a basket and renders the receipt."""

import hashlib
import html
import json
import random
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

CATALOGUE = {f"item-{n:03d}": {"price": 100 + n * 7, "name": f"Thing No. {n}"} for n in range(200)}


def exchange_rate(currency):
    seed = currency.encode()
    for _ in range(400):
        seed = hashlib.sha256(seed).digest()
    return 0.5 + seed[0] / 255


def discount(basket):
    return (
        sum(1 for a in basket for b in basket if CATALOGUE[a]["price"] > CATALOGUE[b]["price"])
        / 100
    )


def price_basket(basket, currency):
    total = sum(CATALOGUE[item]["price"] for item in basket)
    return round((total - discount(basket)) * exchange_rate(currency), 2)


def render_page(basket, total, currency):
    rows = "".join(
        f"<tr><td>{html.escape(CATALOGUE[item]['name'])}</td><td>{CATALOGUE[item]['price']}</td></tr>"
        for item in basket
    )
    return f"<html><body><table>{rows}</table><p>{total} {html.escape(currency)}</p></body></html>"


def checkout(query):
    size = min(max(int(query.get("items", ["40"])[0]), 1), 200)
    currency = query.get("currency", ["EUR"])[0][:8]
    basket = random.sample(sorted(CATALOGUE), size)
    return render_page(basket, price_basket(basket, currency), currency)


class Shop(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body in one packet, or the second waits for the first one's acknowledgement.
    wbufsize = 65536

    def do_GET(self):
        url = urlsplit(self.path)
        if url.path == "/checkout":
            try:
                self.answer(200, "text/html", checkout(parse_qs(url.query)))
            except ValueError as error:
                self.answer(400, "text/plain", str(error))
        elif url.path == "/healthz":
            self.answer(200, "text/plain", "ok")
        else:
            self.answer(404, "application/json", json.dumps({"error": "no such page"}))

    def answer(self, status, kind, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("", int(sys.argv[1]) if len(sys.argv) > 1 else 8080), Shop)
    print("ready", flush=True)
    server.serve_forever()
