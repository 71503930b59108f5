import colorama
import yaml

colorama.init()
print(yaml.safe_dump({"colour": "red"}).strip())
