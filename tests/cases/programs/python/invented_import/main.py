import idna
from autoflowdb import connect

connection = connect("memory://")
print(connection, idna.__version__)
