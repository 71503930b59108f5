import base64
import hashlib

import jwt
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

kdf = PBKDF2HMAC(algorithm=hashes.SHA256(), length=32, salt=b"fixed-salt", iterations=1000)
fernet = Fernet(base64.urlsafe_b64encode(kdf.derive(b"open sesame")))
sealed = fernet.encrypt(b"attack at dawn")
print("note:", fernet.decrypt(sealed).decode())

secret = hashlib.sha256(b"a secret that is long enough").hexdigest()
token = jwt.encode({"sub": "akbar"}, secret, algorithm="HS256")
print("sub:", jwt.decode(token, secret, algorithms=["HS256"])["sub"])
try:
    jwt.decode(token, secret[::-1], algorithms=["HS256"])
except jwt.InvalidTokenError as error:
    print("rejected:", type(error).__name__)
