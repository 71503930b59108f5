import http.server
import socket
import threading
import urllib.request

# A port below 1024, as programs take it that were written for a machine of their own.
server = http.server.ThreadingHTTPServer(("0.0.0.0", 80), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
with urllib.request.urlopen("http://localhost/") as answer:
    print(answer.status)
for pair in socket.socketpair():
    pair.close()
with socket.socket(type=socket.SOCK_DGRAM) as datagram:
    datagram.bind(("127.0.0.1", 0))
    print(socket.if_nameindex()[0][1], len(socket.if_nameindex()))
