# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "packaging==24.2",
#   "tomlkit",
# ]
# ///
"""Bump a minor version without losing comments."""
import tomlkit
from packaging.version import Version

document = tomlkit.parse('[project]\nversion = "1.9.0"  # bump me\n')
old = Version(document["project"]["version"])
new = f"{old.major}.{old.minor + 1}.0"
print(old, "->", new)
document["project"]["version"] = new
print(tomlkit.dumps(document))
