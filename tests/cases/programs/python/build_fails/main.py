import sha3

print(sha3.keccak_256(b"").hexdigest())
