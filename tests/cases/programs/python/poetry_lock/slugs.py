from importlib.metadata import version

from slugify import slugify

print(slugify("Kila Mubarak"), version("python-slugify"))
