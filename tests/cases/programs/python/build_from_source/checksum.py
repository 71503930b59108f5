from pathlib import Path

import crcmod.predefined
from crcmod import _crcfunext

crc32 = crcmod.predefined.mkCrcFun("crc-32")
print(hex(crc32(b"123456789")), "compiled:", Path(_crcfunext.__file__).suffix == ".so")
