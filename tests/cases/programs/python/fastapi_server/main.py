import json
import threading
import time
import urllib.error
import urllib.request

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, Field

app = FastAPI(title="Shop")


class Item(BaseModel):
    name: str
    price: float = Field(gt=0)


@app.post("/items")
async def create_item(item: Item):
    return {**item.model_dump(), "tax": round(item.price * 0.18, 2)}


def post(url, payload):
    request = urllib.request.Request(
        url, data=json.dumps(payload).encode(), headers={"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)["detail"][0]["type"]


def main():
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=8123, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    try:
        print(*post("http://127.0.0.1:8123/items", {"name": "chai", "price": 1.5}))
        print(*post("http://127.0.0.1:8123/items", {"name": "chai", "price": -1}))
    finally:
        server.should_exit = True
        thread.join()


if __name__ == "__main__":
    main()
