import idna
from slugify import slugify

print(slugify("The Fort at Jodhpur!") + ".txt")
print(idna.encode("straße").decode() + ".example")
