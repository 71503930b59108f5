import json
import logging
import threading
import urllib.error
import urllib.request

from flask import Flask, jsonify, request
from werkzeug.serving import make_server

logging.getLogger("werkzeug").setLevel(logging.ERROR)
app = Flask(__name__)
todos = {}


@app.post("/todos")
def create():
    identifier = len(todos) + 1
    todos[identifier] = {"id": identifier, **request.get_json()}
    return jsonify(todos[identifier]), 201


@app.get("/todos/<int:identifier>")
def show(identifier):
    if identifier not in todos:
        return "not found", 404
    return jsonify(todos[identifier])


if __name__ == "__main__":
    server = make_server("127.0.0.1", 0, app)
    threading.Thread(target=server.serve_forever).start()
    base = f"http://127.0.0.1:{server.server_port}"
    try:
        post = urllib.request.Request(
            f"{base}/todos",
            data=json.dumps({"title": "write tests"}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(post) as answer:
            print(answer.status, json.load(answer))
        try:
            urllib.request.urlopen(f"{base}/todos/7")
        except urllib.error.HTTPError as error:
            print(error.code, error.read().decode())
    finally:
        server.shutdown()
