import tomllib

import markdown
import tomli_w
import xmltodict
import yaml
from lxml import etree, html

page = html.fromstring("<html><head><title>Gate</title></head><body><p class='x'>hi</p></body></html>")
print("title:", page.findtext(".//title"))

root = etree.fromstring("<book xml:lang='hi'><chapter/><chapter/></book>")
print("chapters:", len(root.xpath("//chapter")), "lang=" + root.get("{http://www.w3.org/XML/1998/namespace}lang"))

print(yaml.safe_load("name: qila\nwalls: [1, 2, 3]\n"))
print(xmltodict.parse("<a><b>1</b><b>2</b></a>")["a"]["b"])
print(tomli_w.dumps({"section": {"key": "value"}}))
print(tomllib.loads("x = 1")["x"])
print(markdown.markdown("# Notes\n\n* one\n* two"))
